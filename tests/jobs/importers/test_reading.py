"""Choosing a form, and whole jobs over files in it on tiny real networks."""

import csv
import json

import pytest
from typer.testing import CliRunner

from farm.errors import InvalidRequestError
from jobs.edit_many import app
from jobs.importers import FORMS, Reading
from jobs.records import job_name
from tests.jobs.conftest import write_picture
from tests.jobs.importers.test_style_diffusion import EDIT, TRAINING

ROWS = [
    {"case_number": "1"},
    {"case_number": "2", "tau_v": "[.2, .6]"},
    {"case_number": "3", "tau_c": "[.6"},
    {"case_number": "4", "target": "a blue ball on a star", "eq_params": ""},
    {"case_number": "5", "prompt": "the red red red red red red ball"},
]
SHORT = {
    "prompt": "a red ball",
    "target": "a blue ball",
    "image_path": "./images/a.png",
    "blend_word": "[('red',), ('blue',)]",
    "eq_params": "[('blue',), (2,)]",
}
QUICK = ["--param", "num_steps=2", "--param", "inner_steps=1"]


@pytest.fixture
def seed_file(tmp_path):
    def seed_file(*rows: dict, columns=tuple(EDIT)) -> str:
        for folder in ("data", "images"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_picture(tmp_path / "images" / "a.png")
        path = tmp_path / "data" / "edits.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**EDIT, **SHORT, **row} for row in rows)
        return str(path)

    return seed_file


@pytest.fixture
def submit(tiny_set, tmp_path):
    def submit(*arguments: str):
        where = ["--output", str(tmp_path / "store"), "--model-set", tiny_set]
        return CliRunner().invoke(app, [*arguments, *where, "--inline", "--json", *QUICK])

    return submit


def outcomes(result) -> dict[str, dict]:
    return {o["name"]: o for o in map(json.loads, result.stdout.splitlines())}


def test_a_csv_of_the_seed_is_one_job(submit, seed_file, tmp_path):
    result = submit("--from", "style-diffusion", seed_file(*ROWS))
    assert result.exit_code == 1, result.stderr
    found = outcomes(result)
    assert {name: o["status"] for name, o in found.items()} == {
        "case-1": "done",
        "case-2": "done",
        "case-3": "failed",
        "case-4": "failed",
        "case-5": "failed",
    }
    assert "edited_1.png" in found["case-2"]["result"]["files"]
    # the same image, prompt and training: one inversion for both
    assert found["case-2"]["result"]["provenance"]["stages_made"] == []
    says = {name: o["message"] for name, o in found.items() if o["status"] == "failed"}
    assert says["case-3"].startswith("row 3 (line 4), column tau_c: found '[.6'")
    assert says["case-4"].startswith("row 4 (line 5): ")
    assert "'refine' fits" in says["case-4"]
    assert says["case-5"].startswith("row 5 (line 6): ")
    assert "tokens" in says["case-5"]


def test_cases_are_jobs_of_their_own_and_reuse_what_is_there(submit, seed_file, tmp_path):
    path = seed_file(*ROWS[:2])
    one = submit("--from", "style-diffusion", path, "--from-case", "1", "--end-case", "2")
    assert outcomes(one).keys() == {"case-1"}
    both = outcomes(submit("--from", "style-diffusion", path))
    assert [o["result"]["reused"] for o in both.values()] == [True, False]
    jobs = list((tmp_path / "store" / "tenants" / "default" / "jobs").iterdir())
    assert len(jobs) == 2


def test_training_rows_leave_an_inversion_that_edits_use(submit, seed_file):
    trained = outcomes(submit("--from", "style-diffusion", seed_file({}, columns=TRAINING)))
    assert trained["case-1"]["result"]["provenance"]["stages_made"] == ["inversion"]
    edited = outcomes(submit("--from", "style-diffusion", seed_file({})))
    assert edited["case-1"]["result"]["provenance"]["stages_made"] == []


def test_manifests_take_parameters_too(submit, tmp_path):
    write_picture(tmp_path / "a.png")
    lines = [
        {"id": "own", "parameters": {"num_steps": 3}},
        {"id": "jobs"},
        {"id": "broken", "parameters": 7},
    ]
    common = {"image": "a.png", "source_prompt": "a red ball", "target_prompt": "a blue ball"}
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(common | line) for line in lines))
    found = outcomes(submit(str(path)))
    steps = {
        name: o["request"]["parameters"]["num_steps"]
        for name, o in found.items()
        if o["request"] is not None
    }
    assert steps == {"own": 3, "jobs": 2}
    assert "parameters" in found["line-3"]["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "found none of FILE and --manifest"),
        (["a.jsonl", "--manifest", "b.jsonl"], "found two of FILE and --manifest"),
        (
            ["a.csv", "--from", "excel"],
            "no form 'excel' of files: --from takes jsonl, csv, parquet, style-diff",
        ),
        (["a.jsonl", "--from-case", "1"], "choose by case_number"),
        (["none.csv", "--from", "style-diffusion"], "No such file"),
        (["a.csv", "--param", "tau"], "write NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_one_clear_error(submit, arguments, says):
    result = submit(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("error:") == 1


def test_a_folder_stands_for_the_file_in_it(tmp_path):
    assert Reading("pie").file(tmp_path) == tmp_path / "mapping_file.json"
    assert Reading("pie").file(tmp_path / "map.json") == tmp_path / "map.json"
    assert Reading().file(tmp_path) == tmp_path


def test_a_manifest_as_it_is_keeps_its_jobs_name(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_text("{}\n")
    names = {
        job_name(path, "scenes", reading=reading.text())
        for reading in (
            Reading(),
            Reading("style-diffusion"),
            Reading("style-diffusion", from_case=1),
            Reading("style-diffusion", end_case=1),
            Reading(parameters={"tau_c": 0.1}),
        )
    }
    assert len(names) == 5
    assert job_name(path, "scenes") in names


def test_every_form_checks_itself():
    for form in FORMS:
        Reading(form).check()
    with pytest.raises(InvalidRequestError, match="leave them out"):
        Reading("pie", from_case=1).check()
