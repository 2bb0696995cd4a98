"""What every store promises, on a directory and on S3."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.errors import StoreError
from farm.storage.keys import InvalidKeyError, is_key
from farm.storage.store import MissingKeyError, Store, UnusableStoreError, check_writable
from tests.farm.storage.fakes import WrappedStore


def at_once(threads, call):
    """`call(i)` of that many threads, all let go together."""
    barrier = Barrier(threads)

    def run(index):
        barrier.wait()
        return call(index)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def test_is_a_store(store):
    assert isinstance(store, Store)


def test_what_is_put_is_got(store):
    data = bytes(range(256)) * 5000
    version = store.put("a/b.bin", data)
    assert store.get("a/b.bin") == data
    assert store.get_with_version("a/b.bin") == (data, version)
    assert store.size("a/b.bin") == len(data)
    store.put("a/b.bin", b"")
    assert store.get("a/b.bin") == b""
    assert store.size("a/b.bin") == 0


def test_a_missing_key_is_said_to_be_missing(store):
    for read in (store.get, store.get_with_version, store.size):
        with pytest.raises(MissingKeyError, match=r"a/b\.bin") as caught:
            read("a/b.bin")
        assert not caught.value.retryable
    assert not store.exists("a/b.bin")
    assert store.put_if_match("a/b.bin", b"x", "no version") is None
    store.delete("a/b.bin")


def test_delete(store):
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    assert store.exists("a/b")
    assert not store.exists("a")
    with pytest.raises(MissingKeyError):
        store.size("a")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert list(store.list("")) == ["a/c"]
    store.delete("a/c")
    assert list(store.list("")) == []
    assert store.put_if_absent("a/c", b"3") is not None  # its directory is made again


def test_put_if_absent_keeps_what_is_there(store):
    version = store.put_if_absent("k", b"first")
    assert version is not None
    assert store.put_if_absent("k", b"second") is None
    assert store.get_with_version("k") == (b"first", version)


def test_put_if_match_compares_versions(store):
    old = store.put("k", b"1")
    new = store.put_if_match("k", b"2", old)
    assert new is not None
    assert store.put_if_match("k", b"3", old) is None
    assert store.get_with_version("k") == (b"2", new)
    store.delete("k")
    assert store.put_if_match("k", b"4", new) is None
    assert not store.exists("k")


def test_one_of_sixteen_creates(store):
    for round_ in range(3):
        key = f"race/{round_}"
        versions = at_once(16, lambda i, key=key: store.put_if_absent(key, b"%d" % i))
        (winner,) = [i for i, version in enumerate(versions) if version is not None]
        assert store.get_with_version(key) == (b"%d" % winner, versions[winner])


def test_no_increment_is_lost(store):
    store.put("count", b"0")

    def increment(_):
        for _ in range(4):
            while True:
                data, version = store.get_with_version("count")
                if store.put_if_match("count", b"%d" % (int(data) + 1), version) is not None:
                    break

    at_once(6, increment)
    assert store.get("count") == b"24"


def test_who_tidies_does_not_disturb_who_writes(store):
    """Deleting the last object of a directory must not make a neighbour's write fail."""

    def write_and_delete(index):
        for _ in range(10):
            assert store.put_if_absent(f"a/b/{index}", b"x") is not None
            assert store.get(f"a/b/{index}") == b"x"
            store.delete(f"a/b/{index}")

    at_once(4, write_and_delete)
    assert list(store.list("")) == []


def test_list_by_prefix_in_the_order_of_bytes(store):
    keys = ["a/b", "a-b", "a", "a.b/c", "b/a/a/a", "b/a", "é/ü", "Z", "a0"]
    keys = [key for key in keys if key not in {"a", "b/a"}]  # a directory cannot hold these too
    for key in keys:
        store.put(key, b"")
    assert list(store.list("")) == sorted(keys, key=str.encode)
    assert list(store.list("a")) == ["a-b", "a.b/c", "a/b", "a0"]
    assert list(store.list("a/")) == ["a/b"]
    assert list(store.list("b/a/")) == ["b/a/a/a"]
    assert list(store.list("b/a/a/a")) == ["b/a/a/a"]
    assert list(store.list("c/d")) == []


def test_wrong_keys_and_prefixes_are_refused_at_once(store):
    for call in (store.get, store.get_with_version, store.delete, store.exists, store.list):
        with pytest.raises(InvalidKeyError):
            call("../outside")
    for call in (store.put, store.put_if_absent):
        with pytest.raises(InvalidKeyError):
            call("a//b", b"")
    with pytest.raises(InvalidKeyError):
        store.put_if_match("/a", b"", "v")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(max_size=12).filter(is_key), st.binary(max_size=20))
def test_any_key_holds_any_bytes(store, key, data):
    store.put(key, data)
    assert store.get(key) == data
    assert key in list(store.list(key))
    store.delete(key)
    assert not store.exists(key)


def test_a_used_store_pickles(store):
    store.put("k", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.get("k") == b"1"


def test_a_good_store_is_writable_and_left_as_it_was(store):
    store.put("mine", b"1")
    check_writable(store)
    assert list(store.list("")) == ["mine"]


@pytest.mark.parametrize(
    ("method", "header"), [("put_if_absent", "If-None-Match"), ("put_if_match", "If-Match")]
)
def test_a_store_that_ignores_conditions_is_refused(store, method, header):
    ignoring = WrappedStore(store)
    setattr(ignoring, method, lambda key, data, _version=None: store.put(key, data))
    with pytest.raises(UnusableStoreError, match=rf"ignores {header}.*single-writer"):
        check_writable(ignoring)
    assert list(store.list("")) == []


def test_the_first_failure_is_the_one_reported(store):
    def fail(method, _key):
        raise StoreError(f"{method} failed")

    with pytest.raises(StoreError, match=r"^put failed$"):
        check_writable(WrappedStore(store, before=fail))


def test_errors_pickle():
    for error in (MissingKeyError("m"), UnusableStoreError("u")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.retryable) == (type(error), str(error), False)
        assert isinstance(again, StoreError)


def test_entries_tell_size_and_time_in_the_order_of_the_keys(store):
    before = time.time()
    for key, data in (("a/b/2", b"22"), ("a/b/1", b"1"), ("a/c", b"333"), ("b", b"4")):
        store.put(key, data)
    entries = list(store.entries("a/"))
    assert [(e.key, e.size) for e in entries] == [("a/b/1", 1), ("a/b/2", 2), ("a/c", 3)]
    assert all(before - 2 < e.modified < time.time() + 2 for e in entries)


def test_entries_of_one_folder_leave_out_what_lies_below(store):
    for key in ("a/b/2", "a/bc", "a/c", "ab", "d"):
        store.put(key, b"1")

    def keys(prefix: str) -> list[str]:
        return [entry.key for entry in store.entries(prefix, deep=False)]

    assert keys("a/") == ["a/bc", "a/c"]
    assert keys("a/b") == ["a/bc"]
    assert keys("") == ["ab", "d"]
    assert keys("none/") == []
    with pytest.raises(InvalidKeyError):
        keys("../")


def test_names_are_what_follows_up_to_the_next_slash(store):
    for key in ("a/b/2", "a/b/1", "a/c", "a/d/e/f", "ab/x"):
        store.put(key, b"1")
    assert list(store.names("a/")) == ["b", "c", "d"]
    assert list(store.names("none/")) == []


def test_files_go_in_and_out_whole(store, tmp_path):
    data = bytes(range(256)) * 50_000  # more than one part of a transfer
    (tmp_path / "in").write_bytes(data)
    store.put("a/b", b"before")
    store.put_file("a/b", tmp_path / "in")
    assert store.get("a/b") == data
    store.get_file("a/b", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    with pytest.raises(MissingKeyError):
        store.get_file("a/none", tmp_path / "out")
