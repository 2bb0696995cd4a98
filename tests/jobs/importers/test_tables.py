import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farm.errors import InvalidManifestError
from jobs.import_options import ImportOptions
from jobs.importers import Reading, form_of
from jobs.importers.tables import read_csv_table, read_parquet
from jobs.manifests import BrokenLine, ManifestLine

HEADER = "id,image,source_prompt,target_prompt,seed,parameters,parameters.tau_c,truth,deterministic"
OPTIONS = ImportOptions("scenes")


def csv_lines(tmp_path, *rows: str, header: str = HEADER, options: ImportOptions = OPTIONS):
    path = tmp_path / "edits.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return list(read_csv_table(path, options))


def test_columns_are_the_fields_of_a_request(tmp_path):
    first, second = csv_lines(
        tmp_path,
        'ball,a.png,a red ball,a blue ball,3,"{""tau_v"": 0.5}",0.4,true.png,true',
        ",b.png,a cat,a dog,,,,,",
    )
    assert isinstance(first, ManifestLine)
    assert isinstance(second, ManifestLine)
    assert (first.number, first.name, first.truth) == (1, "ball", "true.png")
    assert first.request.seed == 3
    assert first.request.deterministic
    assert first.request.parameters.model_dump(exclude_unset=True) == {"tau_v": 0.5, "tau_c": 0.4}
    assert (second.number, second.name, second.request.seed) == (2, "row-2", 0)
    assert second.request.parameters.model_dump(exclude_unset=True) == {}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("x,a.png,a red ball,a blue ball,many,,,,", "row 1 (line 2): seed:"),
        ("x,a.png,,a blue ball,,,,,", "row 1 (line 2): source_prompt: Field required"),
        ("x,a.png,a,b,,{broken,,,", "row 1 (line 2): parameters: '{broken' is not JSON"),
        ("x,a.png,a,b,,,,,,,", "row 1 (line 2): found 11 cells, expected 9"),
    ],
)
def test_a_wrong_row_says_which_and_why(tmp_path, row, says):
    (line,) = csv_lines(tmp_path, row)
    assert isinstance(line, BrokenLine)
    assert line.error.message.startswith(says)


def test_an_unknown_column_is_an_error_and_not_ignored(tmp_path):
    (line,) = csv_lines(tmp_path, "a.png,a,b,1", header="image,source_prompt,target_prompt,sede")
    assert isinstance(line, BrokenLine)
    assert "sede: no such field" in line.error.message


def test_an_id_names_one_row(tmp_path):
    row = "ball,a.png,a red ball,a blue ball,,,,,"
    _, second = csv_lines(tmp_path, row, row)
    assert isinstance(second, BrokenLine)
    assert "already the id of row 1" in second.error.message


def test_parquet_holds_the_same(tmp_path):
    rows = [
        {"id": "ball", "image": "a.png", "source_prompt": "a", "target_prompt": "b", "seed": 3},
        {"id": None, "image": "b.png", "source_prompt": "a", "target_prompt": "c", "seed": None},
        {"id": "bad", "image": "c.png", "source_prompt": None, "target_prompt": "c", "seed": 1},
    ]
    for row, parameters in zip(rows, ({"tau_c": 0.4}, None, None), strict=True):
        row["parameters"] = parameters
    path = tmp_path / "edits.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    first, second, third = read_parquet(path, OPTIONS)
    assert (first.name, first.request.seed) == ("ball", 3)
    assert first.request.parameters.tau_c == 0.4
    assert (second.name, second.request.seed) == ("row-2", 0)
    assert isinstance(third, BrokenLine)
    assert third.error.message.startswith("row 3: source_prompt")


def test_a_file_that_is_no_parquet_is_one_clear_error(tmp_path):
    path = tmp_path / "edits.parquet"
    path.write_text("text")
    with pytest.raises(InvalidManifestError, match="cannot read the Parquet file"):
        list(read_parquet(path, OPTIONS))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"),
        ("a.CSV", "csv"),
        ("s3://b/a.parquet?region=x", "parquet"),
        ("edits", "jsonl"),
    ],
)
def test_the_form_is_taken_from_the_name(name, form):
    assert form_of(name) == form


def test_variations_and_methods_make_several_edits_of_a_line(tmp_path):
    path = tmp_path / "m.jsonl"
    line = {"id": "x", "image": "a.png", "source_prompt": "a", "target_prompt": "b", "seed": 5}
    path.write_text(json.dumps(line | {"parameters": {"tau_c": 0.4}}) + "\n{broken\n")
    reading = Reading(variations=2, methods=("style_diffusion", "learnable_regions"))
    reading.check()
    lines = list(reading.lines(path, model_set="scenes"))
    assert [found.name for found in lines] == [
        "x-style_diffusion-v1",
        "x-style_diffusion-v2",
        "x-learnable_regions-v1",
        "x-learnable_regions-v2",
        "line-2",
    ]
    good = [found for found in lines if isinstance(found, ManifestLine)]
    assert [found.request.seed for found in good] == [5, 6, 5, 6]
    assert [found.variant for found in good] == [0, 1, 2, 3]
    assert good[0].request.parameters.tau_c == 0.4
    assert {found.request.method for found in good[2:]} == {"learnable_regions"}
    assert Reading().text() == ""
    assert reading.text() != Reading(variations=2).text()


def test_the_method_of_the_job_is_that_of_lines_that_name_none(tmp_path):
    path = tmp_path / "m.jsonl"
    line = {"image": "a.png", "source_prompt": "a", "target_prompt": "b"}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"method": "style_diffusion"}))
    lines = Reading(method="learnable_regions").lines(path, model_set="scenes")
    assert [found.request.method for found in lines] == ["learnable_regions", "style_diffusion"]
