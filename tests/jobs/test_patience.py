"""What is waited for inside of a step of a job's loop: pictures that do not answer for a while."""

import json

import pytest
from typer.testing import CliRunner

from farm.errors import EditCancelledError, StoreError
from farm.storage.local import LocalStore
from farm.storage.store import UnusableStoreError
from jobs import patience as patiently
from jobs.edit_many import app
from jobs.patience import Patience
from jobs.records import CONTROL, EVENT_LOG, JobControl, find_job
from jobs.segments import read_log
from jobs.sources import Pictures
from tests.farm.storage.fakes import FakeClock
from tests.jobs.conftest import write_picture


class Failing:
    """Fails so often, then answers."""

    def __init__(self, times: int, error: StoreError | None = None) -> None:
        self.left, self.error = times, error or StoreError("503")

    def __call__(self) -> str:
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def waits(seconds: float = 60.0, **options) -> Patience:
    clock = FakeClock()
    return Patience(seconds, sleep=clock.sleep, clock=clock, **options)


def test_it_asks_again_and_says_so_once():
    notes, steps = [], []
    patience = waits(meanwhile=lambda: not steps.append(1), note=lambda *note: notes.append(note))
    assert patience.again("a", Failing(3)) == "answer"
    assert len(steps) == 3
    assert [kind for kind, _ in notes] == ["waiting", "recovered"]
    assert notes[0][1] == {"edit": "a", "error": "503"}


def test_it_ends():
    with pytest.raises(StoreError, match="503"):
        waits(10.0).again("a", Failing(1000))
    with pytest.raises(StoreError, match="503"):
        waits(0.0).again("a", Failing(1))


def test_what_will_not_change_is_not_waited_for():
    with pytest.raises(UnusableStoreError):
        waits().again("a", Failing(1, UnusableStoreError("no rights")))


def test_somebody_may_end_it():
    patience = waits(meanwhile=lambda: False)
    with pytest.raises(EditCancelledError, match="503"):
        patience.again("a", Failing(1))
    assert patience.gave_up


@pytest.fixture
def submit(tiny_set, tmp_path, monkeypatch):
    monkeypatch.setattr(patiently, "_PAUSE", 0.01)
    monkeypatch.setattr("jobs.monitor._WISH_SECONDS", 0.0)

    def submit(manifest: str, *options: str):
        where = ["--manifest", manifest, "--output", str(tmp_path / "store")]
        where += ["--model-set", tiny_set, "--inline", "--json"]
        result = CliRunner().invoke(app, [*where, *options])
        return result, {o["name"]: o for o in map(json.loads, result.stdout.splitlines())}

    return submit


@pytest.fixture
def files(tmp_path):
    return lambda: find_job(LocalStore(tmp_path / "store"), "default", None)


@pytest.fixture
def outage(monkeypatch):
    """Lets pictures of this name fail so often, once the first pass has read them."""
    real = Pictures.read

    def outage(name: str, times: int, *, after: int = 1, then=lambda: None) -> None:
        left = [0] * after + [1] * times

        def read(self, uri):
            if uri == name and left and left.pop(0):
                then()
                raise StoreError(f"cannot read {uri}: 503")
            return real(self, uri)

        monkeypatch.setattr(Pictures, "read", read)

    return outage


def test_a_picture_that_does_not_answer_is_waited_for(submit, manifest, tmp_path, files, outage):
    write_picture(tmp_path / "b.png", seed=3)
    outage("b.png", times=4)
    result, found = submit(manifest({"id": "a"}, {"id": "b", "image": "b.png"}, {"id": "c"}))
    assert result.exit_code == 0, result.stderr
    assert [found[name]["status"] for name in "abc"] == ["done"] * 3
    log = read_log(files().store, files().prefix(EVENT_LOG))
    kinds = [json.loads(line)["kind"] for line, _ in log]
    assert (kinds.count("waiting"), kinds.count("recovered")) == (1, 1)


def test_at_the_end_of_patience_the_job_stops(submit, manifest, outage):
    outage("a.png", times=10**6)
    result, _ = submit(manifest({"id": "a"}), "--patience", "0.05")
    assert result.exit_code == 3
    assert "cannot read a.png: 503" in result.stderr


def test_a_job_that_waits_can_be_cancelled(submit, manifest, tmp_path, files, outage):
    def cancel():
        files().write(CONTROL, JobControl(wish="cancel"))

    write_picture(tmp_path / "b.png", seed=3)
    outage("b.png", times=10**6, then=cancel)
    result, _ = submit(manifest({"id": "a"}, {"id": "b", "image": "b.png"}))
    assert result.exit_code == 130
    assert "left (cancelled)" in result.stderr


def test_a_true_picture_that_does_not_answer_is_waited_for(submit, manifest, tmp_path, outage):
    write_picture(tmp_path / "true.png", seed=1)
    outage("true.png", times=3, after=2)  # read by each pass before it is kept
    result, found = submit(manifest({"id": "a", "truth": "true.png"}))
    assert result.exit_code == 0, result.stderr
    assert found["a"]["truth"].endswith("truth/1")


def test_a_true_picture_that_went_meanwhile_ends_no_job(submit, manifest, tmp_path, monkeypatch):
    path, real, seen = write_picture(tmp_path / "true.png", seed=1), Pictures.read, []

    def read(self, uri):
        found = real(self, uri)
        seen.append(uri)
        if seen.count("true.png") == 2:  # by each pass
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Pictures, "read", read)
    result, found = submit(manifest({"id": "a", "truth": "true.png"}))
    assert result.exit_code == 0, result.stderr
    assert (found["a"]["status"], found["a"]["truth"]) == ("done", None)
