"""Records: their order, their races, and what is left of them."""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import CorruptArtifactError
from farm.storage.layout import online_key, pending_key
from farm.storage.local import LocalStore
from farm.storage.opening import open_store
from serve.eta import Pace
from serve.ledger import Claim, Ledger
from serve.records import EditRecord, JobRecord, is_id, line_id, new_id


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_store(str(tmp_path / "store")))


def record(name=None, **changes):
    fields = {
        "id": name or new_id("e"),
        "tenant": "ours",
        "request": {"image": "0" * 64},
        "priority": "interactive",
        "edit_id": "x",
        "image_digest": "0" * 64,
        "created": 1.0,
    }
    return EditRecord.model_validate(fields | changes)


def marked(ledger):
    """Tenants and ids of all markers."""
    return [(pending.tenant, pending.id) for pending in ledger.pending()]


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=20))
def test_later_ids_sort_before_earlier_ones(times):
    names = [(int(now * 1000), new_id("e", now)) for now in times]
    assert all(is_id(name) for _, name in names)
    for (one_time, one), (two_time, two) in itertools.pairwise(names):
        if one_time > two_time:
            assert one < two


@pytest.mark.parametrize("text", ["", "e", "../x", "e" + "g" * 27, "E" + "0" * 27, "e" + "0" * 28])
def test_other_texts_are_no_ids(text):
    assert not is_id(text)


def test_a_lines_id_is_the_same_again_and_no_other_lines():
    job = JobRecord(id=new_id("j"), tenant="a", manifest="m", max_in_flight=1, created=1.7e9)
    names = [line_id(job, number) for number in range(1000)]
    assert names == [line_id(job, number) for number in range(1000)]
    assert len(set(names)) == 1000
    assert all(is_id(name) for name in names)


def test_accepting_twice_keeps_the_first(ledger):
    first = ledger.accept(record("e" + "0" * 27, created=1.0), b"image", None)
    second = ledger.accept(record("e" + "0" * 27, created=2.0), b"other", b"mask")
    assert first == second
    assert ledger.image(first) == b"image"
    assert ledger.mask(first) is None
    assert marked(ledger) == [("ours", first.id)]


def test_a_marker_is_as_old_as_its_latest_writing_and_accepting_again_renews_it(ledger):
    line = line_id(JobRecord(id="j", tenant="ours", manifest="", max_in_flight=1, created=1.0), 1)
    left = ledger.store.root / pending_key("ours", line)
    ledger.store.put(pending_key("ours", line), b"")
    os.utime(left, (5.0, 5.0))
    assert [pending.written for pending in ledger.pending()] == [5.0]
    ledger.accept(record(line), b"image", None)
    (pending,) = ledger.pending()
    assert abs(pending.written - time.time()) < 60


def test_no_change_is_lost_when_many_make_one(ledger):
    name = ledger.accept(record(), b"", None).id

    def count(_):
        def step(found):
            return found.model_copy(update={"attempts": found.attempts + 1})

        return ledger.change("ours", name, step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(40)))
    assert ledger.read("ours", name).attempts == 40


def test_a_claim_is_given_once(ledger):
    claims = [Claim(id=new_id("e"), body="same") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        given_out = list(pool.map(lambda claim: ledger.claim("ours", "key", claim), claims))
    assert len({claim.id for claim in given_out}) == 1
    assert ledger.claimed("ours", "key") == given_out[0]
    assert ledger.claimed("theirs", "key") is None


def test_nothing_is_left_of_what_is_removed(ledger):
    kept = ledger.accept(record(request={"mask": "1"}, state="failed"), b"image", b"mask")
    ledger.settle(kept, keep_image=True)
    assert marked(ledger) == []
    assert ledger.mask(kept) == b"mask"
    ledger.reopen("ours", kept.id, lambda found: found)
    assert marked(ledger) == [("ours", kept.id)]
    ledger.remove(kept)
    assert list(ledger.store.list("")) == []


def again(found):
    return found.model_copy(update={"state": "queued"})


def test_what_is_reopened_while_it_is_settled_stays_pending(ledger, monkeypatch):
    failed = ledger.accept(record(state="failed"), b"image", None)
    delete = LocalStore.delete

    def reopened_first(store, key):
        monkeypatch.setattr(LocalStore, "delete", delete)
        ledger.reopen("ours", failed.id, again)
        delete(store, key)

    monkeypatch.setattr(LocalStore, "delete", reopened_first)
    assert not ledger.settle(failed, keep_image=True)
    assert marked(ledger) == [("ours", failed.id)]
    assert not ledger.settle(failed, keep_image=True)  # it is no longer what was settled
    assert not ledger.settle(ledger.read("ours", failed.id), keep_image=True)  # it waits
    assert marked(ledger) == [("ours", failed.id)]
    ended = ledger.change("ours", failed.id, lambda r: r.model_copy(update={"state": "failed"}))
    assert ledger.settle(ended, keep_image=True)
    assert marked(ledger) == []


def test_what_is_settled_while_it_is_reopened_stays_pending(ledger):
    failed = ledger.accept(record(state="failed"), b"image", None)

    def settled_first(found):
        assert ledger.settle(failed, keep_image=True)
        return again(found)

    assert ledger.reopen("ours", failed.id, settled_first).state == "queued"
    assert marked(ledger) == [("ours", failed.id)]


def test_a_damaged_record_says_so(ledger):
    ledger.store.put(online_key("ours", "records", "e" + "0" * 27), b"{")
    with pytest.raises(CorruptArtifactError):
        ledger.read("ours", "e" + "0" * 27)


def test_the_remaining_time_follows_the_steps_of_the_stage():
    pace = Pace()

    def at(now, stage, step):
        return pace.step("a", {"stage": stage, "step": step, "total": 10, "loss": 0.5}, now)

    assert at(0.0, "one", 2).eta_seconds is None  # one look tells no pace
    assert at(4.0, "one", 4).eta_seconds == 12.0  # 2 steps in 4 s, 6 are left
    assert at(5.0, "two", 1).eta_seconds is None
    assert at(6.0, "two", 10).eta_seconds == 0.0
    assert at(7.0, "two", 3).eta_seconds is None  # it began again
    assert pace.step("b", None, 8.0) is None
