import csv
from pathlib import Path

import pytest

from farm.errors import InvalidManifestError
from jobs.importers.options import ImportOptions
from jobs.importers.style_diffusion import read_style_diffusion
from jobs.manifests import BrokenLine, ManifestLine
from tests.jobs.conftest import write_picture

PROMPT = "black and white dog playing red ball on black carpet"
TARGET = "black and white tiger playing red ball on black carpet"
IMAGE = f"./example_images/{PROMPT}.jpg"
EDIT = {
    "": "0",
    "case_number": "1",
    "prompt": PROMPT,
    "image_path": IMAGE,
    "target": TARGET,
    "blend_word": "[('dog',), ('tiger',)]",
    "eq_params": "[('tiger',), (2,)]",
    "tau_v": "[.6,]",
    "tau_c": "[.6,]",
    "tau_s": "[.8,]",
    "tau_u": "[.5,]",
    "edit_type": "Replacement",
    "url": "",
}
TRAINING = ("", "case_number", "prompt", "image_path", "url")


@pytest.fixture
def folder(tmp_path):
    """As the program's own: CSV files in `data`, pictures beside it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "example_images").mkdir()
    write_picture(tmp_path / IMAGE)
    return tmp_path


@pytest.fixture
def read(folder):
    def read(*rows: dict, columns=tuple(EDIT), **options):
        path = folder / "data" / "stylediffusion_editing.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**EDIT, **row} for row in rows)
        return list(read_style_diffusion(path, ImportOptions("sd14", **options)))

    return read


def parameters_of(line):
    assert isinstance(line, ManifestLine), line.error.message
    return line.request.parameters.model_dump(exclude_none=True, exclude_defaults=True)


def test_the_seeds_own_example_is_read_as_it_is(read):
    (line,) = read({})
    request = line.request
    assert (line.number, line.name, line.place) == (2, "case-1", "row 1 (line 2)")
    assert (request.source_prompt, request.target_prompt) == (PROMPT, TARGET)
    assert request.image == str(Path("..", "example_images", f"{PROMPT}.jpg"))
    assert request.model_set == "sd14"
    assert parameters_of(line) == {
        "tau_v": 0.6,
        "tau_c": 0.6,
        "tau_s": 0.8,
        "tau_u": 0.5,
        "edit_type": "replace",
        "equalizer": {"tiger": 2.0},
        "local_blend": True,
        "source_words": ("dog",),
        "target_words": ("tiger",),
    }


def test_one_word_prompts_are_the_same_form(read):
    (line,) = read({"prompt": "dog", "target": "tiger"})
    assert (line.request.source_prompt, line.request.target_prompt) == ("dog", "tiger")


def test_several_values_are_one_request_with_all_combinations(read):
    (line,) = read({"tau_v": "[.2, .5]", "tau_s": "[0, 1, .5]"})
    assert line.request.parameters.tau_v == (0.2, 0.5)
    assert line.request.parameters.tau_s == (0.0, 1.0, 0.5)
    assert line.request.parameters.num_cells == 6


def test_windows_and_windows_of_words(read):
    first, second, third = read(
        {"tau_c": "[(.2, .8)]", "tau_u": "[0, (.1, .5)]"},
        {"tau_c": "[{'default_': .8, 'tiger': (.2, .5), 'red ball': .3}]"},
        {"tau_c": "{'tiger': .5}"},
    )
    windows = first.request.parameters
    assert (windows.tau_c.begin, windows.tau_c.end) == (0.2, 0.8)
    assert windows.tau_u[0] == 0
    assert windows.tau_u[1].end == 0.5
    words = second.request.parameters
    assert words.tau_c == 0.8
    assert words.cross_windows["red ball"] == 0.3
    assert words.cross_windows["tiger"].begin == 0.2
    assert third.request.parameters.tau_c == 1.0  # as the program without `default_`


@pytest.mark.parametrize("blend", ["None", "", "  "])
@pytest.mark.parametrize("equalizer", ["None", ""])
def test_no_blend_and_no_factors(read, blend, equalizer):
    (line,) = read({"blend_word": blend, "eq_params": equalizer})
    parameters = parameters_of(line)
    assert parameters["local_blend"] is False
    assert not {"source_words", "target_words", "equalizer"} & parameters.keys()


def test_words_may_be_bare_and_several(read):
    (line,) = read({"blend_word": "['dog', ('Tiger', 'red ball')]", "eq_params": "['tiger', 2.5]"})
    assert line.request.parameters.target_words == ("Tiger", "red ball")
    assert line.request.parameters.equalizer == {"tiger": 2.5}


@pytest.mark.parametrize(
    ("row", "columns"), [({}, TRAINING), ({"edit_type": "StoreAttn", "tau_v": ""}, tuple(EDIT))]
)
def test_training_alone_gives_the_picture_again(read, row, columns):
    (line,) = read(row, columns=columns)
    assert line.request.target_prompt == PROMPT
    assert parameters_of(line) == {
        "tau_v": 1.0,
        "tau_c": 0.0,
        "tau_s": 0.0,
        "tau_u": 0.0,
        "equalizer": {"black": 1.0},
        "local_blend": False,
    }


def test_cases_are_chosen_from_one_to_before_another(read):
    rows = [{"case_number": str(case)} for case in (1, 2, 3, 2, 10)]
    assert [line.name for line in read(*rows)] == [
        "case-1",
        "case-2",
        "case-3",
        "case-2-2",
        "case-10",
    ]
    chosen = read(*rows, from_case=2, end_case=3)
    assert [(line.name, line.place) for line in chosen] == [
        ("case-2", "row 2 (line 3)"),
        ("case-2-2", "row 4 (line 5)"),
    ]
    assert [line.name for line in read(*rows, from_case=3)] == ["case-3", "case-10"]
    assert [line.name for line in read({"case_number": "7.0"})] == ["case-7"]


def test_parameters_of_the_job_are_below_those_of_a_row(read):
    first, second = read({}, {}, parameters={"tau_v": 0.1, "num_steps": 50, "reference": True})
    for line in (first, second):
        assert line.request.parameters.tau_v == 0.6
        assert line.request.parameters.num_steps == 50
        assert line.request.parameters.reference


CODE = "__import__('os').system('touch touched')"


@pytest.mark.parametrize(
    ("row", "column", "found", "expected"),
    [
        ({"tau_v": CODE}, "tau_v", "which is no literal", "[.6,]"),
        ({"tau_c": "[.6"}, "tau_c", "'[.6', which is no literal", "[.6,]"),
        ({"tau_s": "[0.5 + 0.1j]"}, "tau_s", "(0.5+0.1j)", "[.6,]"),
        ({"tau_s": "(" * 3000}, "tau_s", "which is no literal", "[.6,]"),
        ({"tau_s": "[" + "0," * 3000 + "]"}, "tau_s", "6,002 characters", "[.6,]"),
        ({"tau_u": ""}, "tau_u", "an empty cell", "[.6,]"),
        ({"tau_u": "[]"}, "tau_u", "an empty list", "[.6,]"),
        ({"tau_u": "[True]"}, "tau_u", "True", "[.6,]"),
        ({"tau_u": "['.5']"}, "tau_u", "'.5'", "[.6,]"),
        ({"tau_v": "[1.2]"}, "tau_v", "1.2", "from 0 to 1"),
        ({"tau_v": "[1e999]"}, "tau_v", "inf", "[.6,]"),
        ({"tau_v": "[(.2, .4)]"}, "tau_v", "(0.2, 0.4)", "[.6,]"),
        ({"tau_c": "[(.8, .4)]"}, "tau_c", "from 0.8 to 0.4", "begin before end"),
        ({"tau_c": "[.5, {'tiger': .4}]"}, "tau_c", "{'tiger': 0.4}", "a row for each dict"),
        ({"tau_c": "[{'zebra': .4}]"}, "tau_c", "'zebra'", TARGET),
        ({"tau_c": "[{3: .4}]"}, "tau_c", "{3: 0.4}", "default_"),
        ({"blend_word": "dog"}, "blend_word", "'dog', which is no literal", "[('dog',)"),
        ({"blend_word": "('dog',)"}, "blend_word", "('dog',)", "[('dog',), ('tiger',)]"),
        ({"blend_word": "[('cat',), ('tiger',)]"}, "blend_word", "'cat'", PROMPT),
        ({"blend_word": "[('dog',), ('dog',)]"}, "blend_word", "'dog'", TARGET),
        ({"blend_word": "[(), ('tiger',)]"}, "blend_word", "()", "[('dog',)"),
        ({"eq_params": "[('zebra',), (2,)]"}, "eq_params", "'zebra'", TARGET),
        ({"eq_params": "[('tiger',), (2, 3)]"}, "eq_params", "1 words and 2 factors", "one factor"),
        ({"eq_params": "[('tiger', 'tiger'), (2, 3)]"}, "eq_params", "2 words", "each word once"),
        ({"eq_params": "[('tiger',), ('2',)]"}, "eq_params", "('2',)", "[('tiger',), (2,)]"),
        ({"eq_params": "[('tiger',), (True,)]"}, "eq_params", "(True,)", "[('tiger',), (2,)]"),
        ({"eq_params": "{'tiger': 2}"}, "eq_params", "{'tiger': 2}", "[('tiger',), (2,)]"),
        ({"edit_type": "Replace"}, "edit_type", "'Replace'", "Replacement, Refinement, StoreAttn"),
        ({"case_number": "one"}, "case_number", "'one'", "a whole number"),
        ({"case_number": "-1"}, "case_number", "'-1'", "a whole number"),
        ({"prompt": " "}, "prompt", "an empty cell", "in words"),
        ({"target": ""}, "target", "an empty cell", "in words"),
        ({"image_path": "./none.jpg"}, "image_path", "'./none.jpg'", "a picture in one of"),
    ],
)
def test_a_wrong_cell_is_named_and_other_rows_go_on(
    read, folder, monkeypatch, row, column, found, expected
):
    monkeypatch.chdir(folder)
    before, broken, after = read({}, {"case_number": "2", **row}, {"case_number": "3"})
    assert isinstance(before, ManifestLine)
    assert isinstance(after, ManifestLine)
    assert isinstance(broken, BrokenLine)
    assert isinstance(broken.error, InvalidManifestError)
    head, _, rest = broken.error.message.partition(": found ")
    assert head == f"row 2 (line 3), column {column}"
    shown, _, wanted = rest.partition(", expected ")
    assert found in shown
    assert expected in wanted
    assert not (folder / "touched").exists()


@pytest.mark.parametrize("column", [name for name in EDIT if name not in ("", "url")])
def test_a_missing_column_is_said_for_each_row(read, column):
    lines = read({}, {}, columns=tuple(name for name in EDIT if name != column))
    for number, line in enumerate(lines, start=1):
        assert isinstance(line, BrokenLine)
        place = f"row {number} (line {number + 1}), column {column}: the file has no such column"
        assert line.error.message.startswith(place)


def test_what_only_the_request_can_tell_names_the_row(read):
    same, many = read({"target": PROMPT, "blend_word": "", "eq_params": ""}, {"tau_v": "[.1]*1"})
    assert same.error.message.startswith("row 1 (line 2): ")
    assert "nothing to edit" in same.error.message
    assert "which is no literal" in many.error.message  # a product is no literal
    (cells,) = read({name: str([n / 10 for n in range(10)]) for name in ("tau_v", "tau_c")})
    assert cells.error.message.startswith("row 1 (line 2): ")
    assert "100 edits in one request" in cells.error.message


def test_pictures_beside_the_file_go_before_those_above(read, folder):
    write_picture(folder / "data" / "a.png")
    write_picture(folder / "a.png", seed=1)
    absolute = str(folder / "a.png")
    first, second = read({"image_path": "a.png"}, {"image_path": absolute})
    assert (first.request.image, second.request.image) == ("a.png", absolute)


def test_pictures_where_the_command_runs(read, folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_picture(elsewhere / "b.png")
    monkeypatch.chdir(elsewhere)
    (line,) = read({"image_path": "./b.png"})
    assert (folder / "data" / line.request.image).samefile(elsewhere / "b.png")
