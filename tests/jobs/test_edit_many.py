"""The whole job on tiny real networks in this process; only Ray is left out."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.errors import BackboneLostError
from farm.runner.failures import POLICY, FailureKind, Rule
from jobs import inline
from jobs.edit_many import app
from jobs.inline import InlineRunner
from jobs.records import find_job
from tests.jobs.conftest import QUICK, write_picture


@pytest.fixture
def submit(tiny_set, tmp_path):
    def submit(manifest: str, *options: str):
        output = tmp_path / "store"
        where = ["--manifest", manifest, "--output", str(output), "--model-set", tiny_set]
        return CliRunner().invoke(app, [*where, "--inline", "--json", *options])

    return submit


def outcomes(result) -> dict[str, dict]:
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    by_name = {outcome["name"]: outcome for outcome in lines}
    assert len(by_name) == len(lines), "each line of a manifest has one outcome"
    return by_name


def test_a_job_does_all_and_leaves_outcomes_summary_and_report(submit, manifest, tmp_path):
    write_picture(tmp_path / "true.png", seed=1)
    result = submit(manifest({"id": "one", "truth": "true.png"}, {"seed": 1}))
    assert result.exit_code == 0, result.stderr
    found = outcomes(result)
    assert found.keys() == {"one", "line-2"}
    assert all(outcome["status"] == "done" for outcome in found.values())
    (job,) = (tmp_path / "store" / "tenants" / "default" / "jobs").iterdir()
    lines = (job / "outcomes.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["one", "line-2"]
    assert json.loads((job / "summary.json").read_text())["totals"]["done"] == 2
    page = (job / "report.html").read_text()
    assert page.count('alt="before of') == 2
    assert page.count('alt="true edit of') == 1
    assert "[1/2] done one" in result.stderr


def test_submitting_again_does_only_what_is_missing(submit, manifest, monkeypatch):
    first = submit(manifest({"id": "one"}, {"id": "two", "seed": 1}))
    again = submit(manifest({"id": "one"}, {"id": "new", "seed": 2}, {"id": "two", "seed": 1}))
    assert (first.exit_code, again.exit_code) == (0, 0)
    before, after = outcomes(first), outcomes(again)
    assert {name: o["result"]["reused"] for name, o in after.items()} == {
        "one": True,
        "two": True,
        "new": False,
    }
    assert after["one"]["result"]["attempt"] == before["one"]["result"]["attempt"]

    monkeypatch.setattr(InlineRunner, "flight", None)  # whoever starts something now fails
    third = submit(manifest({"id": "one"}, {"id": "two", "seed": 1}))
    assert third.exit_code == 0, third.stderr
    assert [o["result"]["reused"] for o in outcomes(third).values()] == [True, True]


def test_two_targets_of_one_image_invert_once(submit, manifest):
    result = submit(manifest({"id": "blue"}, {"id": "green", "target_prompt": "a green ball"}))
    provenance = {name: o["result"]["provenance"] for name, o in outcomes(result).items()}
    assert provenance["blue"]["stages_made"] == ["inversion"]
    assert provenance["green"]["stages_made"] == []
    assert "unet_backward" in provenance["blue"]["work"]
    assert "unet_backward" not in provenance["green"]["work"]


def test_broken_lines_are_outcomes_and_harm_no_other(submit, manifest, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    lines = [
        {"id": "good"},
        "{broken",
        {"id": "unreadable", "image": "text.png"},
        {"id": "absent", "image": "none.png"},
        {"id": "word", "target_word": "zebra"},
        {"id": "long", "source_prompt": "a red ball on a blue picture with a star"},
        {"id": "tau", "parameters": QUICK | {"tau_v": 2}},
        {"id": "truth", "truth": "none.png"},
        {"id": "also-good", "seed": 1},
    ]
    result = submit(manifest(*lines))
    assert result.exit_code == 1
    found = outcomes(result)
    assert {n for n, o in found.items() if o["status"] == "done"} == {"good", "also-good"}
    kinds = {name: o["kind"] for name, o in found.items() if o["status"] == "failed"}
    assert kinds == {
        "line-2": "InvalidManifestError",
        "unreadable": "InvalidImageError",
        "absent": "InvalidImageError",
        "word": "UnknownWordError",
        "long": "InvalidPromptError",
        "line-7": "InvalidManifestError",
        "truth": "InvalidImageError",
    }
    assert found["word"]["line"] == 5
    (job,) = (tmp_path / "store" / "tenants" / "default" / "jobs").iterdir()
    kept = [json.loads(line)["line"] for line in (job / "outcomes.jsonl").read_text().splitlines()]
    assert kept == list(range(1, 10))
    assert "zebra" in found["word"]["message"]


@pytest.mark.parametrize(
    ("lines", "says"), [((), "has no line"), (("{}", "[]"), "source_prompt: Field required")]
)
def test_a_manifest_without_a_good_line_is_wrong_as_a_whole(submit, manifest, lines, says):
    result = submit(manifest(*lines))
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_failed_edit_is_an_outcome_and_the_exit_code_says_so(submit, manifest, monkeypatch):
    def run_one(self, name, prepared, budget, watch):
        del self, prepared, budget, watch
        return BackboneLostError(f"{name} lost its backbone")

    monkeypatch.setattr(InlineRunner, "run_one", run_one)
    monkeypatch.setitem(POLICY, FailureKind.transient, Rule())
    result = submit(manifest({"id": "one"}))
    assert result.exit_code == 1
    (outcome,) = outcomes(result).values()
    assert outcome["retryable"]
    assert outcome["kind"] == "BackboneLostError"
    assert outcome["request"]["id"] == "one"


def test_an_unforeseen_error_in_this_process_fails_its_edit_alone(submit, manifest, monkeypatch):
    """As it would in a trainer of its own."""
    real = inline.run_edit

    def run(prepared, *rest, **options):
        if prepared.request.id == "one":
            raise ZeroDivisionError("a fault")
        return real(prepared, *rest, **options)

    monkeypatch.setattr(inline, "run_edit", run)
    result = submit(manifest({"id": "one"}, {"id": "two"}))
    assert result.exit_code == 1
    found = outcomes(result)
    assert found["one"]["kind"] == "EditFailedError"
    assert "unforeseen ZeroDivisionError: a fault" in found["one"]["message"]
    assert found["two"]["status"] == "done"


def test_what_ends_the_job_at_once(submit, manifest, tmp_path):
    good = manifest({})
    missing_set = CliRunner().invoke(
        app, ["--manifest", good, "--output", str(tmp_path / "s"), "--model-set", "nowhere"]
    )
    assert missing_set.exit_code == 2
    assert "no model set 'nowhere'" in missing_set.stderr
    assert submit(str(tmp_path / "none.jsonl")).exit_code == 2
    (tmp_path / "file").write_text("")
    unwritable = submit(good, "--output", str(tmp_path / "file" / "below"))
    assert unwritable.exit_code == 3
    assert unwritable.stderr.count("error:") == 1
    assert "Traceback" not in unwritable.stderr
    assert not (tmp_path / "s").exists()
    unwritable = submit(good, "--report-file", str(tmp_path / "file" / "report.html"))
    assert unwritable.exit_code == 2
    assert "is a file" in unwritable.stderr
    assert not (tmp_path / "store").exists()


def test_an_interrupted_job_says_that_it_can_go_on(submit, manifest, monkeypatch):
    def flight(self, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(InlineRunner, "flight", flight)
    result = submit(manifest({}))
    assert result.exit_code == 130
    assert "the same command does the rest" in result.stderr


def test_the_report_can_be_written_anew_from_the_store_alone(submit, manifest, tmp_path):
    from jobs.report import app as report_app

    write_picture(tmp_path / "true.png", seed=1)
    submit(manifest({"id": "one", "truth": "true.png"}, "{broken"), "--no-report")
    for path in (*tmp_path.glob("*.png"), tmp_path / "manifest.jsonl"):
        path.unlink()
    page = tmp_path / "out" / "page.html"
    options = ["--store", str(tmp_path / "store"), "--file", str(page)]
    result = CliRunner().invoke(report_app, options)
    assert result.exit_code == 0, result.stderr
    text = page.read_text()
    assert 'alt="true edit of one"' in text
    assert "InvalidManifestError" in text
    other = CliRunner().invoke(report_app, [*options, "--job", "absent"])
    assert other.exit_code == 2
    assert "there is no job 'absent'" in other.stderr


def test_a_store_keeps_several_jobs_apart(submit, manifest, tmp_path):
    from farm.errors import InvalidRequestError
    from farm.storage.opening import open_store

    submit(manifest({}))
    shutil.copy(tmp_path / "manifest.jsonl", tmp_path / "same.jsonl")
    submit(str(tmp_path / "same.jsonl"))
    store = open_store(str(tmp_path / "store"))
    assert find_job(store, "default", None).summary().totals["reused"] == 1
    submit(manifest({"seed": 5}))
    with pytest.raises(InvalidRequestError, match=r"no job was named; jobs in .*: [0-9a-f]{16}, "):
        find_job(store, "default", None)


def test_edits_are_drawn_only_as_room_becomes_free(tiny_set, manifest, tmp_path):
    from farm.storage.opening import open_store
    from farm.zoo.model_sets import open_model_set
    from jobs.batch import Batch, Survey, run_missing, survey
    from jobs.dispatch import Ended

    path = Path(manifest(*({"seed": seed} for seed in range(4))))
    models = open_model_set(tiny_set)
    batch = Batch(path, models, open_store(str(tmp_path / "store")), "default", "job")
    found = Survey()
    assert list(survey(batch, found)) == []
    assert found.missing == 4
    drawn = []

    def run(edits):
        for name, _ in edits:
            drawn.append(name)
            yield Ended(name, BackboneLostError("not really run"), 0.0, 1)

    outcomes = run_missing(batch, run, found)
    next(outcomes)
    assert len(drawn) == 1
    assert [outcome.line for outcome in outcomes] == [2, 3, 4]
