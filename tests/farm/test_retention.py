"""What may go from a store, by its age; time is handed in."""

import os
import time

import pytest

from farm.errors import CorruptArtifactError
from farm.results import SCHEMA_VERSION
from farm.runner import load_result
from farm.runner.retention import (
    DAY,
    QuotaExceededError,
    Retention,
    check_quota,
    plan,
    plan_to_quota,
    quota,
    remove,
    set_quota,
    usage,
)
from farm.storage.commits import commit, read_commit
from farm.storage.layout import (
    attempt_file_key,
    checkpoint_key,
    edit_prefix,
    input_key,
    job_file_key,
    stage_prefix,
)
from farm.storage.leases import acquire
from farm.storage.local import LocalStore
from farm.storage.store import UnusableStoreError
from tests.jobs.outcome_examples import done_edit

TENANT = "default"
USED, UNUSED = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path) -> LocalStore:
    """A finished edit with its stage and picture, and what others left half-done."""
    store = LocalStore(tmp_path / "store")
    edit, stage = edit_prefix(TENANT, "done"), stage_prefix(TENANT, "stage")
    about = {"provenance": {"image_digest": USED, "stages": {"inversion": "stage"}}}
    commit(store, stage, "s1", {"inversion.safetensors": b"x" * 1000})
    commit(store, edit, "e1", {"edited.png": b"x" * 100}, about)
    store.put(attempt_file_key(edit, "lost", "edited.png"), b"late")
    store.put(checkpoint_key(stage, 1), b"old state")
    store.put(attempt_file_key(edit_prefix(TENANT, "half"), "h1", "edited.png"), b"half")
    store.put(input_key(TENANT, USED), b"picture")
    store.put(input_key(TENANT, UNUSED), b"nobody's")
    store.put(job_file_key(TENANT, "job", "summary.json"), b"{}")
    store.put("probes/1", b"probe")
    return store


def planned(store, retention=None, *, days=2.0):
    found = plan(store, TENANT, retention or Retention(), clock=lambda: time.time() + days * DAY)
    return {(removal.what, removal.name) for removal in found}


def test_what_is_young_stays(store):
    assert planned(store, days=0.5) == set()


def test_after_a_day_goes_what_nobody_finished(store):
    assert planned(store) == {
        ("attempt", "done/lost"),
        ("attempt", "half"),
        ("checkpoint", "stage"),
        ("input", UNUSED),
        ("probe", "probes/1"),
    }


def test_finished_things_go_only_when_a_time_is_named(store):
    found = planned(store, Retention(stages=DAY, edits=DAY, jobs=DAY))
    assert {("stage", "stage"), ("edit", "done"), ("job", "job")} <= found
    found = planned(store, Retention(stages=3 * DAY, edits=3 * DAY, jobs=3 * DAY))
    assert not {what for what, _ in found} & {"stage", "edit", "job"}


def test_pictures_stay_while_somebody_works(store):
    """A new edit may use a picture that has been there for long."""
    old = time.time() - 2 * DAY
    os.utime(store.root / input_key(TENANT, UNUSED), (old, old))
    assert ("input", UNUSED) not in planned(store, days=0.0)
    for key in list(store.list(edit_prefix(TENANT, "half"))):
        store.delete(key)
    assert ("input", UNUSED) in planned(store, days=0.0)


def test_removing_leaves_what_is_finished_as_it_was(store):
    for removal in list(plan(store, TENANT, Retention(), clock=lambda: time.time() + 2 * DAY)):
        assert remove(store, removal)
    assert planned(store) == set()
    record = read_commit(store, edit_prefix(TENANT, "done"))
    assert record is not None
    assert store.get(attempt_file_key(edit_prefix(TENANT, "done"), "e1", "edited.png"))
    assert store.exists(input_key(TENANT, USED))
    assert not list(store.list(edit_prefix(TENANT, "half")))


def test_a_stage_that_somebody_makes_is_left_alone(store):
    lease = acquire(store, stage_prefix(TENANT, "stage"), "somebody", ttl=60.0)
    assert lease is not None
    late = lambda: time.time() + 2 * DAY  # noqa: E731
    (stage,) = [
        r for r in plan(store, TENANT, Retention(stages=DAY), clock=late) if r.what == "stage"
    ]
    assert not remove(store, stage)
    lease.release()
    assert remove(store, stage)
    assert read_commit(store, stage_prefix(TENANT, "stage")) is None


def test_pictures_of_edits_that_do_not_tell_stay(store):
    commit(store, edit_prefix(TENANT, "other"), "1", {"edited.png": b"1"})
    assert ("input", UNUSED) not in planned(store)


def test_a_quota_refuses_and_the_oldest_stages_go_first(store):
    check_quota(store, TENANT)  # none
    assert quota(store, TENANT) is None
    kept = usage(store, TENANT)
    set_quota(store, TENANT, kept * 2)
    check_quota(store, TENANT)
    set_quota(store, TENANT, kept - 500)
    with pytest.raises(QuotaExceededError, match="may keep"):
        check_quota(store, TENANT)
    removals = list(plan_to_quota(store, TENANT, quota(store, TENANT) or 0))
    assert [(r.what, r.name) for r in removals] == [("stage", "stage")]
    for removal in removals:
        remove(store, removal)
    check_quota(store, TENANT)
    assert list(plan_to_quota(store, TENANT, 10**9)) == []
    set_quota(store, TENANT, None)
    assert quota(store, TENANT) is None


def test_leftovers_of_killed_writers_are_found_by_age(store):
    (store.root / ".tmp" / "left").write_bytes(b"half")
    assert list(store.leftovers(time.time() - 10)) == []
    (left,) = store.leftovers(time.time() + 10)
    assert left.name == "left"


def provenance(**changes):
    about = done_edit().result.provenance.model_dump(mode="json") | changes
    return {"provenance": {name: value for name, value in about.items() if value is not None}}


def test_edits_of_older_farms_are_read(store):
    older = provenance(schema_version=1, trainer_node=None)
    commit(store, edit_prefix(TENANT, "older"), "1", {"edited.png": b"1"}, older)
    result = load_result(store, TENANT, "older")
    assert result is not None
    assert (result.provenance.schema_version, result.provenance.trainer_node) == (1, "")


def test_edits_of_newer_farms_are_refused_by_name(store):
    newer = provenance(schema_version=SCHEMA_VERSION + 1, colour_of_the_trainer="blue")
    commit(store, edit_prefix(TENANT, "newer"), "1", {"edited.png": b"1"}, newer)
    with pytest.raises(UnusableStoreError, match="upgrade the farm"):
        load_result(store, TENANT, "newer")


def test_provenance_that_is_none_is_one_clear_error(store):
    with pytest.raises(CorruptArtifactError, match="editfarm artifacts delete"):
        load_result(store, TENANT, "done")
