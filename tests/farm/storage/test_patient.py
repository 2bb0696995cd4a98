import pickle
from collections import Counter

import pytest

from farm.errors import StoreError
from farm.storage.commits import commit, read_commit
from farm.storage.patient import PatientStore
from farm.storage.store import (
    MissingKeyError,
    NoCredentialsYetError,
    Store,
    UnusableStoreError,
)
from tests.farm.storage.fakes import FakeClock, LosesReplies, WrappedStore


class Failing(WrappedStore):
    """Every method fails so often before it answers."""

    def __init__(self, store: Store, times: int, error: StoreError | None = None) -> None:
        super().__init__(store, before=self.fail)
        self.times, self.error = times, error or StoreError("503")
        self.asked: Counter[str] = Counter()

    def fail(self, method: str, key: str) -> None:
        self.asked[method] += 1
        if self.asked[method] <= self.times:
            raise self.error


def patient(store: Store, clock: FakeClock, patience: float = 60.0) -> PatientStore:
    return PatientStore(store, patience, clock.sleep, clock)


def test_it_is_a_store_and_pickles(local_store):
    store = PatientStore(local_store)
    assert isinstance(store, Store)
    assert pickle.loads(pickle.dumps(store)) == store
    assert store.uri == local_store.uri


def test_every_method_is_asked_again(local_store, tmp_path):
    clock = FakeClock()
    store = patient(Failing(local_store, times=3), clock)
    version = store.put("a/b", b"1")
    assert store.put_if_absent("a/b", b"2") is None
    assert store.put_if_match("a/b", b"3", version) is not None
    assert store.get("a/b") == b"3"
    assert store.get_with_version("a/b")[0] == b"3"
    assert store.exists("a/b")
    (tmp_path / "f").write_bytes(b"file")
    store.put_file("a/c", tmp_path / "f")
    store.get_file("a/c", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == b"file"
    assert list(store.list("a/")) == ["a/b", "a/c"]
    assert [entry.size for entry in store.entries("a/")] == [1, 4]
    assert [entry.key for entry in store.entries("a/", deep=False)] == ["a/b", "a/c"]
    assert list(store.entries("", deep=False)) == []
    assert list(store.names("a/")) == ["b", "c"]
    store.delete("a/b")
    assert not local_store.exists("a/b")
    assert clock.now > 1_000_000.0


def test_patience_ends(local_store):
    clock = FakeClock(0.0)
    with pytest.raises(StoreError, match="503"):
        patient(Failing(local_store, times=10**6), clock, patience=30.0).get("a")
    assert 20.0 < clock.now <= 30.0


@pytest.mark.parametrize("error", [MissingKeyError("none"), UnusableStoreError("no rights")])
def test_what_will_not_change_is_not_asked_again(local_store, error):
    clock, failing = FakeClock(0.0), Failing(local_store, times=9, error=error)
    with pytest.raises(type(error)):
        patient(failing, clock).get("a")
    assert failing.asked["get"] == 1
    assert clock.now == 0.0


def test_whoever_has_no_credentials_hears_of_it_soon(local_store):
    clock, error = FakeClock(0.0), NoCredentialsYetError("set AWS credentials")
    store = patient(Failing(local_store, times=10**6, error=error), clock)
    with pytest.raises(NoCredentialsYetError):
        store.get("a")
    assert 1.0 < clock.now <= 3.0

    class NeverLists(WrappedStore):
        def entries(self, prefix, *, deep=True):
            raise error
            yield

    before = clock.now
    with pytest.raises(NoCredentialsYetError):
        list(patient(NeverLists(local_store), clock).entries("x/"))
    assert clock.now - before <= 3.0


def test_credentials_may_come_late(local_store):
    local_store.put("a", b"1")
    late = Failing(local_store, times=3, error=NoCredentialsYetError("set AWS credentials"))
    assert patient(late, FakeClock()).get("a") == b"1"


def test_a_commit_whose_reply_is_lost_is_known_for_our_own(local_store):
    losing = LosesReplies(local_store, "put_if_absent", "COMMIT.json", times=2)
    record = commit(patient(losing, FakeClock()), "edits/x", "one", {"a.png": b"1"})
    assert record.won
    again = read_commit(local_store, "edits/x")
    assert again is not None
    assert again.attempt == "one"


def test_a_listing_that_breaks_off_goes_on_where_it_was(local_store):
    for name in "abcdef":
        local_store.put(f"x/{name}", b"1")
    broken = 0

    class BreaksOff(WrappedStore):
        def list(self, prefix):
            nonlocal broken
            for number, key in enumerate(self.store.list(prefix)):
                if number == 2 and broken < 2:
                    broken += 1
                    raise StoreError("reset")
                yield key

    listed = list(patient(BreaksOff(local_store), FakeClock()).list("x/"))
    assert listed == [f"x/{name}" for name in "abcdef"]
    assert broken == 2


def test_a_listing_that_never_comes_further_ends(local_store):
    class NeverLists(WrappedStore):
        def list(self, prefix):
            raise StoreError("reset")
            yield

    with pytest.raises(StoreError):
        list(patient(NeverLists(local_store), FakeClock()).list("x/"))
