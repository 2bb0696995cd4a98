import pytest

from farm.errors import InvalidManifestError
from jobs.importers.csv_rows import read_rows


@pytest.fixture
def rows(tmp_path):
    def rows(data: bytes | str):
        path = tmp_path / "file.csv"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return list(read_rows(path))

    return rows


def test_rows_know_their_number_and_the_line_they_begin_on(rows):
    found = rows('a,b\n1,"two\nlines"\n\n , \n3,4\n')
    assert [(row.number, row.line, dict(row.cells)) for row in found] == [
        (1, 2, {"a": "1", "b": "two\nlines"}),
        (2, 6, {"a": "3", "b": "4"}),
    ]
    assert found[1].place == "row 2 (line 6)"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_are_no_content(rows, ending):
    (row,) = rows("\ufeffa,b" + ending + "1,2" + ending)
    assert dict(row.cells) == {"a": "1", "b": "2"}


def test_cells_that_are_not_there_say_so(rows):
    (row,) = rows(",a,b,c\n0,1\n")
    assert row.cell("a", "a number") == "1"
    with pytest.raises(InvalidManifestError, match=r"^row 1 \(line 2\), column b: .*only 2 cells"):
        row.cell("b", "a number")
    with pytest.raises(InvalidManifestError) as raised:
        row.cell("d", "a number")
    assert raised.value.message == (
        "row 1 (line 2), column d: the file has no such column, it has (unnamed), a, b, c; "
        "expected a number"
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"a,b\n1,2,3\n4,5\n", "found 3 cells, expected 2 as in the header"),
        (b"a,b\n\xff,2\n4,5\n", "byte 1 of the line is not UTF-8"),
        (b"a,b\n" + b"x" * 70_000 + b",2\n4,5\n", "longer than 64 KiB"),
        (b"a,b\n1\r2,3\n4,5\n", "not CSV"),
    ],
)
def test_a_row_that_is_none_harms_no_other(rows, data, says):
    broken, *others = rows(data)
    with pytest.raises(InvalidManifestError, match=r"^row 1 \(line 2\): ") as raised:
        broken.cell("a", "a number")
    assert says in raised.value.message
    assert others[-1].cell("b", "a number") == "5"


@pytest.mark.parametrize(
    ("data", "says"), [("", "has no header"), ("a,b,a\n1,2,3\n", "names a twice")]
)
def test_a_file_without_a_usable_header_is_refused(rows, data, says):
    with pytest.raises(InvalidManifestError, match=says):
        rows(data)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InvalidManifestError, match="No such file"):
        list(read_rows(tmp_path / "none.csv"))


def test_rows_are_read_only_as_they_are_asked_for(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("a\n1\n")
    rows = read_rows(path)
    assert next(rows).cell("a", "") == "1"
    with path.open("a") as file:
        file.write("2\n")
    assert next(rows).cell("a", "") == "2"
