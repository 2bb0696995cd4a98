"""A job that was stopped, killed, paused or asked to try again: only what is missing is run."""

import csv
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.errors import BackboneLostError, EditDivergedError
from farm.runner.artifacts import delete_edit
from farm.runner.failures import POLICY, FailureKind, Rule
from farm.storage.local import LocalStore
from farm.storage.store import UnusableStoreError
from jobs import batch, runners
from jobs.control import app as jobs_app
from jobs.edit_many import app
from jobs.inline import InlineRunner
from jobs.records import CONTROL, EVENT_LOG, JobControl, find_job
from jobs.segments import read_log
from tests.jobs.conftest import write_picture


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def submit(tiny_set, store):
    def submit(manifest: str, *options: str, code: int | None = 0):
        where = ["--manifest", manifest, "--output", str(store.root), "--model-set", tiny_set]
        result = CliRunner().invoke(app, [*where, "--inline", "--json", *options])
        assert code is None or result.exit_code == code, result.stderr
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        return {line["name"]: line for line in lines}, result.stderr

    return submit


@pytest.fixture
def run(monkeypatch):
    """Runs edits for real, but for those whose name has an error here; remembers all it ran."""
    real, errors, ran = InlineRunner.run_one, {}, []

    def run_one(self, name, prepared, budget, watch):
        ran.append(name.partition(":")[2])
        error = errors.get(ran[-1])
        if isinstance(error, BaseException) and not isinstance(error, Exception):
            raise error
        return error or real(self, name, prepared, budget, watch)

    monkeypatch.setattr(InlineRunner, "run_one", run_one)
    run_one.errors, run_one.ran = errors, ran
    return run_one


def events(store: LocalStore) -> list[dict]:
    files = find_job(store, "default", None)
    return [json.loads(line) for line, _ in read_log(store, files.prefix(EVENT_LOG))]


FOUR = [{"id": name, "seed": n} for n, name in enumerate("abcd")]


def test_a_resumed_job_reads_its_log_and_not_every_commit(submit, manifest, monkeypatch, run):
    path = manifest(*FOUR)
    submit(path)
    run.ran.clear()
    monkeypatch.setattr(batch, "load_result", None)  # whoever reads a commit fails
    prepared = []
    real = batch.prepare
    monkeypatch.setattr(batch, "prepare", lambda *a, **k: prepared.append(1) or real(*a, **k))
    found, stderr = submit(path)
    assert all(o["result"]["reused"] for o in found.values())
    assert run.ran == []
    assert len(prepared) == 1, "the first row of the method alone is checked whole"
    assert "0 edits to do, 4 in the store, 0 refused" in stderr


def test_without_its_log_a_job_finds_the_commits(submit, manifest, store, run):
    path = manifest(*FOUR)
    first, _ = submit(path)
    for key in list(store.list("tenants/default/jobs/")):
        store.delete(key)
    run.ran.clear()
    again, _ = submit(path)
    assert run.ran == []
    attempts = [{n: o["result"]["attempt"] for n, o in found.items()} for found in (first, again)]
    assert attempts[0] == attempts[1]


def test_a_deleted_edit_is_done_again(submit, manifest, store, run):
    path = manifest(*FOUR)
    first, _ = submit(path)
    delete_edit(store, "default", first["b"]["result"]["edit_id"])
    run.ran.clear()
    submit(path)
    assert run.ran == ["b"]


def test_a_changed_picture_is_done_again(submit, manifest, tmp_path, run):
    write_picture(tmp_path / "b.png", seed=3)
    path = manifest({"id": "a"}, {"id": "b", "image": "b.png"})
    submit(path)
    write_picture(tmp_path / "b.png", seed=4)
    run.ran.clear()
    submit(path)
    assert run.ran == ["b"]


@pytest.mark.parametrize("after", [1, 2])
def test_a_picture_that_changes_while_its_edit_waits_is_done_again(
    submit, manifest, tmp_path, run, monkeypatch, after
):
    """Also one that changes right after the second pass has read it."""
    path, real, seen = write_picture(tmp_path / "b.png", seed=3), batch.prepare, []

    def prepare(request, image, *arguments, **options):
        if request.id == "b":
            seen.append(image)
            if len(seen) == after:
                write_picture(path, seed=4, side=24)
        return real(request, image, *arguments, **options)

    monkeypatch.setattr(batch, "prepare", prepare)
    lines = manifest({"id": "a"}, {"id": "b", "image": "b.png"})
    first, _ = submit(lines)
    again, _ = submit(lines)
    assert run.ran == (["a", "b"] if after == 1 else ["a", "b", "b"])
    edits = {found["b"]["result"]["edit_id"] for found in (first, again)}
    assert len(edits) == (1 if after == 1 else 2)


def test_another_version_of_a_method_sets_the_history_aside(submit, manifest, monkeypatch, run):
    path = manifest(*FOUR)
    submit(path)
    real = batch.prepare

    def prepare_otherwise(*arguments, **options):
        prepared = real(*arguments, **options)
        return replace(prepared, edit_id=prepared.edit_id[::-1])

    monkeypatch.setattr(batch, "prepare", prepare_otherwise)
    run.ran.clear()
    submit(path)
    assert run.ran == list("abcd")


def test_an_interrupted_job_keeps_what_it_did(submit, manifest, store, run):
    path = manifest(*FOUR)
    run.errors["c"] = KeyboardInterrupt()
    _, stderr = submit(path, code=130)
    assert "the same command does the rest" in stderr
    status = find_job(store, "default", None).status()
    assert (status.state, status.done) == ("interrupted", 2)
    run.errors.clear()
    run.ran.clear()
    submit(path)
    assert run.ran == ["c", "d"]
    assert events(store)[-1]["kind"] == "finished"


def test_poison_stays_until_it_is_asked_for_and_the_rest_is_tried_again(
    submit, manifest, store, run, monkeypatch
):
    monkeypatch.setitem(POLICY, FailureKind.transient, Rule())
    path = manifest(*FOUR)
    run.errors |= {"a": EditDivergedError("not finite"), "b": BackboneLostError("gone")}
    submit(path, code=1)
    run.errors.clear()
    run.ran.clear()
    found, _ = submit(path, code=1)
    assert run.ran == ["b"], "poison is not tried again by itself"
    assert (found["a"]["kind"], found["a"]["message"]) == ("EditDivergedError", "not finite")
    result = CliRunner().invoke(jobs_app, ["retry-failed", "--store", str(store.root), "--json"])
    assert result.exit_code == 0, result.stderr
    assert run.ran == ["b", "a"]


def test_a_store_that_one_process_could_not_use_is_no_failure_for_good(
    submit, manifest, run, monkeypatch
):
    monkeypatch.setitem(POLICY, FailureKind.transient, Rule(retries=1))
    path = manifest(*FOUR[:1])
    run.errors |= {"a": UnusableStoreError("cannot read 'k': AccessDenied")}
    submit(path, code=1)
    assert run.ran == ["a", "a"]
    run.errors.clear()
    found, _ = submit(path)
    assert found["a"]["status"] == "done"


def test_a_cancelled_job_says_what_is_left_and_resume_does_it(submit, manifest, store, run):
    path = manifest(*FOUR)
    real = run

    def cancel_after_first(self, name, prepared, budget, watch):
        files = find_job(store, "default", None)
        files.write(CONTROL, JobControl(wish="cancel"))
        return real(self, name, prepared, budget, watch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InlineRunner, "run_one", cancel_after_first)
        patch.setattr("jobs.monitor._WISH_SECONDS", 0.0)
        _, stderr = submit(path, code=130)
    assert "left (cancelled)" in stderr
    left = find_job(store, "default", None).summary().totals["left"]
    assert left == 3
    run.ran.clear()
    result = CliRunner().invoke(jobs_app, ["resume", "--store", str(store.root), "--json"])
    assert result.exit_code == 0, result.stderr
    assert len(run.ran) == left


def test_a_job_whose_farm_still_starts_is_alive_and_can_be_cancelled(
    submit, manifest, store, run, monkeypatch
):
    monkeypatch.setattr("jobs.monitor._STATUS_SECONDS", 0.02)
    real, seen = runners._open_inline, []

    @contextmanager
    def slow(*args):
        first = find_job(store, "default", None).status()
        deadline = time.monotonic() + 30
        while (latest := find_job(store, "default", None).status()).updated <= first.updated:
            assert time.monotonic() < deadline, "no sign of life"
            time.sleep(0.02)
        seen.append(latest.state)
        where = ["--store", str(store.root)]
        assert CliRunner().invoke(jobs_app, ["cancel", *where]).exit_code == 0
        with real(*args) as runner:
            yield runner

    monkeypatch.setattr(runners, "_open_inline", slow)
    _, stderr = submit(manifest(*FOUR), code=130)
    assert seen == ["starting"]
    assert "4 left (cancelled)" in stderr
    assert run.ran == []


def test_a_job_stops_at_its_budget(submit, manifest, store):
    _, stderr = submit(manifest(*FOUR), "--max-accelerator-seconds", "0.000001", code=1)
    assert "left (budget)" in stderr
    assert find_job(store, "default", None).summary().totals["stopped"] == "budget"


def test_an_edit_fails_at_its_own_budget(submit, manifest):
    path = manifest({"id": "a"})
    found, _ = submit(path, "--edit-accelerator-seconds", "0.000001", code=1)
    assert found["a"]["kind"] == "BudgetExceededError"
    assert "has cost" in found["a"]["message"]


def test_jobs_are_listed_and_shown(submit, manifest, store):
    submit(manifest(*FOUR[:1]))
    where = ["--store", str(store.root)]
    listed = CliRunner().invoke(jobs_app, ["list", *where, "--json"])
    (about,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (about["state"], about["done"], about["left"]) == ("finished", 1, 0)
    assert CliRunner().invoke(jobs_app, ["list", *where]).exit_code == 0
    shown = CliRunner().invoke(jobs_app, ["show", about["job"][:6], *where, "--json"])
    assert json.loads(shown.stdout)["totals"]["done"] == 1
    told = CliRunner().invoke(jobs_app, ["show", *where, "--events"])
    kinds = [json.loads(line)["kind"] for line in told.stdout.splitlines()]
    assert [kind for kind in kinds if kind != "progress"] == [
        "checked",
        "started",
        "done",
        "finished",
    ]
    for wish in ("pause", "cancel"):
        refused = CliRunner().invoke(jobs_app, [wish, *where])
        assert refused.exit_code == 2
        assert "does not run" in refused.stderr


def test_the_table_and_the_report_count_all(submit, manifest, store):
    found, _ = submit(manifest({"id": "a", "source_prompt": "=a ball"}, "{broken"), code=1)
    files = find_job(store, "default", None)
    rows = list(csv.DictReader(files.get("outcomes.csv").decode().splitlines()))
    assert [(row["line"], row["status"]) for row in rows] == [("1", "done"), ("2", "failed")]
    assert rows[0]["source_prompt"] == "'=a ball", "no formula"
    assert rows[0]["edit_id"] == found["a"]["result"]["edit_id"]


def test_a_report_has_pages_and_rows_of_deleted_edits(submit, manifest, store, monkeypatch):
    from jobs import reporting

    monkeypatch.setattr(reporting, "PAGE_EDITS", 3)
    path = manifest(*FOUR)
    found, _ = submit(path)
    files = find_job(store, "default", None)
    first, second = files.get("report.html").decode(), files.get("report-2.html").decode()
    assert (first.count('alt="before of'), second.count('alt="before of')) == (3, 1)
    assert 'href="report-2.html"' in first
    assert 'href="report.html"' in second
    delete_edit(store, "default", found["a"]["result"]["edit_id"])
    from jobs.report import app as report_app

    again = CliRunner().invoke(report_app, ["--store", str(store.root)])
    assert again.exit_code == 0, again.stderr
    page = files.get("report.html").decode()
    assert page.count('alt="before of') == 2
    assert "deleted since" in page


@pytest.mark.parametrize(
    ("lines", "code", "says"),
    [
        ([{"id": "a"}], 0, "1 rows are right, 0 are wrong"),
        ([{"id": "a"}, "{broken"], 1, "row 2 (line-2): line 2: not JSON"),
        ([{"id": "a", "target_word": "zebra"}], 2, "row 1 (a): "),
    ],
)
def test_validating_runs_nothing(submit, tiny_set, manifest, store, lines, code, says):
    options = ["--manifest", manifest(*lines), "--output", str(store.root)]
    options += ["--model-set", tiny_set, "--validate-only"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == code
    assert says in result.output
    assert not store.root.exists()


def test_a_csv_of_our_own_columns_needs_no_form(submit, tmp_path, picture):
    path = tmp_path / "edits.csv"
    rows = ["id,image,source_prompt,target_prompt,parameters"]
    rows += [f'x,{Path(picture).name},a red ball,a blue ball,"{{""num_steps"": 2}}"']
    path.write_text("\n".join(rows))
    found, _ = submit(str(path), "--param", "inner_steps=1")
    assert found["x"]["status"] == "done"


def test_variations_share_no_seed(submit, manifest):
    found, _ = submit(manifest({"id": "a"}), "--variations", "2")
    assert {n: o["request"]["seed"] for n, o in found.items()} == {"a-v1": 0, "a-v2": 1}
    assert found["a-v1"]["result"]["edit_id"] != found["a-v2"]["result"]["edit_id"]


def test_a_backbone_that_goes_as_the_job_begins_does_not_stop_it(submit, manifest, monkeypatch):
    real, lost = InlineRunner.describe, [BackboneLostError("its node is gone")]

    def describe(self):
        if lost:
            raise lost.pop()
        return real(self)

    monkeypatch.setattr(InlineRunner, "describe", describe)
    found, _ = submit(manifest({"id": "a"}))
    assert found["a"]["status"] == "done"
