import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from pydantic import ValidationError

from farm.errors import CorruptArtifactError, StoreError
from farm.storage.commits import CommitRecord, commit, read_commit, read_file
from farm.storage.layout import attempt_file_key, commit_key
from farm.storage.store import MissingKeyError, UnusableStoreError
from tests.farm.storage.fakes import LosesReplies, RefusesOwnSuccess, WrappedStore

TARGET = "tenants/acme/edits/e1"
FILES = {"edited.png": b"picture", "sub/metrics.json": b"{}"}


def keys_of(store):
    return list(store.list(""))


def test_commit_and_read(store):
    assert read_commit(store, TARGET) is None
    record = commit(store, TARGET, "u1", FILES, {"seed": 7, "digests": {"unet": "ab"}})
    assert record.won
    assert record.attempt == "u1"
    assert read_commit(store, TARGET) == record.model_copy(update={"won": False})
    for name, data in FILES.items():
        assert read_file(store, TARGET, record, name) == data
    assert keys_of(store) == sorted(
        [commit_key(TARGET), *(attempt_file_key(TARGET, "u1", name) for name in FILES)]
    )


def test_the_stored_document(store):
    commit(store, TARGET, "u1", {"a": b"picture"}, {"seed": 7})
    assert json.loads(store.get(commit_key(TARGET))) == {
        "schema_version": 1,
        "attempt": "u1",
        "files": {"a": {"sha256": hashlib.sha256(b"picture").hexdigest(), "size": 7}},
        "extra": {"seed": 7},
    }


def test_a_late_attempt_is_told_who_won_and_leaves_nothing(store):
    commit(store, TARGET, "u1", FILES)
    before = keys_of(store)
    record = commit(store, TARGET, "u2", {"edited.png": b"other"})
    assert (record.attempt, record.won) == ("u1", False)
    assert keys_of(store) == before
    assert read_file(store, TARGET, record, "edited.png") == b"picture"


def test_one_of_eight_attempts_wins(store):
    barrier = Barrier(8)

    def attempt(index):
        barrier.wait()
        return commit(store, TARGET, f"u{index}", {"a": b"%d" % index})

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(attempt, range(8)))
    (winner,) = [i for i, record in enumerate(records) if record.won]
    assert {record.attempt for record in records} == {f"u{winner}"}
    assert read_file(store, TARGET, records[0], "a") == b"%d" % winner
    assert keys_of(store) == [commit_key(TARGET), attempt_file_key(TARGET, f"u{winner}", "a")]


def test_a_loser_that_uploaded_first_tidies_up(store):
    """The other attempt commits between our files and our COMMIT.json."""

    def overtake(method, key):
        if method == "put_if_absent" and key == commit_key(TARGET):
            commit(store, TARGET, "quicker", {"a": b"its"})

    record = commit(WrappedStore(store, before=overtake), TARGET, "slower", FILES)
    assert (record.attempt, record.won) == ("quicker", False)
    assert keys_of(store) == [commit_key(TARGET), attempt_file_key(TARGET, "quicker", "a")]


def test_a_lost_reply_to_ones_own_success_is_a_success(store):
    for flaky in (
        LosesReplies(store, "put_if_absent", "COMMIT.json"),
        RefusesOwnSuccess(store, "COMMIT.json"),
    ):
        record = commit(flaky, TARGET, "u1", FILES)
        assert record.won
        assert read_file(store, TARGET, record, "edited.png") == b"picture"
        for key in keys_of(store):
            store.delete(key)


def test_a_lost_reply_while_uploading_is_no_conflict(store):
    record = commit(RefusesOwnSuccess(store, "edited.png"), TARGET, "u1", FILES)
    assert record.won
    assert read_file(store, TARGET, record, "edited.png") == b"picture"


def test_when_all_replies_are_lost_nothing_is_taken_away(store):
    """The commit may have landed (here it has), so its files must stay."""
    with pytest.raises(StoreError, match="connection reset") as caught:
        commit(LosesReplies(store, "put_if_absent", "COMMIT.json", times=3), TARGET, "u1", FILES)
    assert caught.value.retryable
    record = commit(store, TARGET, "u2", FILES)
    assert (record.attempt, record.won) == ("u1", False)
    assert read_file(store, TARGET, record, "edited.png") == b"picture"


def deleting(store, times):
    """Somebody commits just before our put, and it is gone just after it, so many times."""
    left = [times]

    def appear(method, key):
        if method == "put_if_absent" and key == commit_key(TARGET) and left[0] > 0:
            left[0] -= 1
            store.put(key, b"another's")

    def disappear(method, key):
        if (
            method == "put_if_absent"
            and key == commit_key(TARGET)
            and store.get(key) == b"another's"
        ):
            store.delete(key)

    return WrappedStore(store, before=appear, after=disappear)


def test_a_commit_that_is_deleted_while_one_looks_is_put_again(store):
    record = commit(deleting(store, times=2), TARGET, "u1", FILES)
    assert record.won
    assert read_file(store, TARGET, record, "edited.png") == b"picture"
    kept = read_commit(store, TARGET)
    assert kept is not None
    assert kept.attempt == "u1"


def test_a_commit_that_appears_and_disappears_is_told(store):
    with pytest.raises(StoreError, match="appears and disappears: see who deletes it"):
        commit(deleting(store, times=3), TARGET, "u1", FILES)
    assert read_commit(store, TARGET) is None


def test_a_store_that_refuses_is_not_asked_again(store):
    asked = []

    def refuse(method, key):
        if method == "put_if_absent" and key == commit_key(TARGET):
            asked.append(key)
            raise UnusableStoreError("no rights")

    with pytest.raises(UnusableStoreError, match="no rights"):
        commit(WrappedStore(store, before=refuse), TARGET, "u1", FILES)
    assert len(asked) == 1


def test_an_attempt_is_used_once(store):
    store.put(attempt_file_key(TARGET, "u1", "a"), b"of an earlier run")
    with pytest.raises(CorruptArtifactError, match="share one attempt's name"):
        commit(store, TARGET, "u1", {"a": b"mine"})
    assert read_commit(store, TARGET) is None


def test_the_same_run_may_ask_twice(store):
    first = commit(store, TARGET, "u1", FILES)
    assert commit(store, TARGET, "u1", FILES) == first


@pytest.mark.parametrize("found", [b"picturf", b"pictur", b""])
def test_a_changed_file_is_found_by_its_digest(store, found):
    record = commit(store, TARGET, "u1", FILES)
    store.put(attempt_file_key(TARGET, "u1", "edited.png"), found)
    with pytest.raises(CorruptArtifactError, match=f"expected 7 bytes.*found {len(found)} with"):
        read_file(store, TARGET, record, "edited.png")
    assert read_file(store, TARGET, record, "sub/metrics.json") == b"{}"


def test_a_file_that_is_gone_and_one_that_never_was(store):
    record = commit(store, TARGET, "u1", FILES)
    store.delete(attempt_file_key(TARGET, "u1", "edited.png"))
    with pytest.raises(CorruptArtifactError, match="gone"):
        read_file(store, TARGET, record, "edited.png")
    with pytest.raises(MissingKeyError, match=r"no file 'mask\.png'.*edited\.png"):
        read_file(store, TARGET, record, "mask.png")


VALID = {"schema_version": 1, "attempt": "u1", "files": {}, "extra": {}}


@pytest.mark.parametrize(
    ("document", "error", "message"),
    [
        (b"", CorruptArtifactError, "no commit record"),
        (b"\xff{", CorruptArtifactError, "no commit record"),
        (b"[1]", CorruptArtifactError, "no commit record"),
        (b"{}", CorruptArtifactError, "no commit record"),
        (VALID | {"schema_version": 2, "new": 1}, UnusableStoreError, "2, this farm knows 1"),
        (VALID | {"colour": "red"}, CorruptArtifactError, "colour"),
        (VALID | {"won": True}, CorruptArtifactError, "won"),
        (VALID | {"files": {"a": {"sha256": "x", "size": 1}}}, CorruptArtifactError, "sha256"),
    ],
)
def test_what_is_no_commit_is_refused(store, document, error, message):
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    store.put(commit_key(TARGET), data)
    with pytest.raises(error, match=message) as caught:
        read_commit(store, TARGET)
    assert type(caught.value) is error
    with pytest.raises(error):
        commit(store, TARGET, "u2", FILES)


def test_a_record_is_frozen_and_strict():
    record = CommitRecord(attempt="u", files={}, extra={})
    with pytest.raises(ValidationError):
        record.attempt = "v"
    with pytest.raises(ValidationError):
        CommitRecord(attempt="u", files={}, extra={}, colour="red")
