"""What only a directory can do wrong."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.errors import StoreError
from farm.storage.commits import commit
from farm.storage.local import LocalStore
from farm.storage.store import UnusableStoreError, check_writable

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from farm.storage.local import LocalStore

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

store = LocalStore(Path(sys.argv[1]))
{death}
getattr(store, sys.argv[2])("a/b", b"new" * 100_000)
"""
IN_THE_MIDDLE_OF_THE_DATA = """
write_bytes = Path.write_bytes
Path.write_bytes = lambda path, data: (write_bytes(path, data[: len(data) // 2]), die())
"""
WITH_THE_LOCK_BEFORE_IT_SHOWS = "Path.replace = Path.hardlink_to = die"


@pytest.mark.parametrize("death", [IN_THE_MIDDLE_OF_THE_DATA, WITH_THE_LOCK_BEFORE_IT_SHOWS])
def test_a_killed_writer_leaves_nothing_to_see_and_no_lock(local_store, death):
    local_store.put("a/kept", b"old")
    for method in ("put", "put_if_absent"):
        program = [sys.executable, "-c", KILLED_WRITER.format(death=death)]
        end = subprocess.run([*program, str(local_store.root), method], check=False, timeout=60)
        assert end.returncode == -signal.SIGKILL
        assert not local_store.exists("a/b")
        assert list(local_store.list("")) == ["a/kept"]
    assert local_store.put_if_absent("a/b", b"whole") is not None
    assert local_store.get("a/b") == b"whole"


COUNTER = """
import sys
from pathlib import Path
from farm.storage.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
for _ in range(100):
    version = None
    while version is None:
        data, seen = store.get_with_version("count")
        version = store.put_if_match("count", b"%d" % (int(data) + 1), seen)
"""


def test_processes_exclude_each_other(local_store):
    local_store.put("count", b"0")
    program = [sys.executable, "-c", COUNTER, str(local_store.root)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: subprocess.run(program, check=True, timeout=60), range(3)))
    assert local_store.get("count") == b"300"


def test_a_reader_sees_the_old_or_the_new(local_store):
    old, new = b"o" * 300_000, b"n" * 400_000
    local_store.put("k", old)
    with ThreadPoolExecutor(1) as pool:
        writes = pool.submit(lambda: [local_store.put("k", d) for d in (new, old) * 20])
        while not writes.done():
            assert local_store.get("k") in {old, new}


@pytest.fixture
def disk_log(monkeypatch):
    """What becomes durable and what becomes visible, in order, by path."""
    log: list[tuple[str, Path]] = []
    fsync, link, replace = os.fsync, Path.hardlink_to, Path.replace

    def logged_fsync(descriptor):
        log.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def logged_link(path, target):
        link(path, target)
        log.append(("appear", path))

    def logged_replace(path, target):
        replace(path, target)
        log.append(("appear", target))

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "hardlink_to", logged_link)
    monkeypatch.setattr(Path, "replace", logged_replace)
    return log


@pytest.mark.parametrize("method", ["put", "put_if_absent", "put_if_match"])
def test_data_is_on_disk_before_its_name_shows_and_the_name_before_we_return(
    local_store, disk_log, method
):
    arguments = (local_store.put("a/b/c", b"old"),) if method == "put_if_match" else ()
    disk_log.clear()
    assert getattr(local_store, method)("a/b/c", b"new", *arguments) is not None
    path = local_store.root / "a/b/c"
    appeared = disk_log.index(("appear", path))
    before, after = disk_log[:appeared], disk_log[appeared + 1 :]
    assert [p.parent.name for kind, p in before if p.parent.name == ".tmp"] == [".tmp"]
    assert ("sync", path.parent) in after
    if method != "put_if_match":  # the directories were new, so their names must last as well
        new_names_in = {path.parent, path.parent.parent, local_store.root, local_store.root.parent}
        assert {p for _, p in disk_log} >= new_names_in


def test_a_commit_is_on_disk_only_after_its_files_and_before_it_is_said(local_store, disk_log):
    commit(local_store, "t/e", "a" * 32, {"one": b"1", "two": b"2"})
    shown = [path for kind, path in disk_log if kind == "appear"]
    assert [path.name for path in shown] == ["one", "two", "COMMIT.json"]
    times = [*(disk_log.index(("appear", path)) for path in shown), len(disk_log)]
    for path, now, next_one in zip(shown, times, times[1:], strict=False):
        assert ("sync", path.parent) in disk_log[now:next_one]


def test_a_disk_that_fails_to_flush_is_an_error_and_nothing_shows(local_store, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        local_store.put_if_absent("a", b"1")
    assert not local_store.exists("a")


def test_a_file_system_that_cannot_flush_directories_is_used_all_the_same(local_store, monkeypatch):
    fsync = os.fsync

    def refuse(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    assert local_store.put_if_absent("a/b", b"1") is not None
    assert local_store.get("a/b") == b"1"


def test_without_hard_links_create_if_absent_still_holds(local_store, monkeypatch):
    def refuse(_self, _target):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda i: local_store.put_if_absent("k", b"%d" % i), range(8)))
    (winner,) = [i for i, version in enumerate(versions) if version is not None]
    assert local_store.get("k") == b"%d" % winner


@pytest.mark.parametrize("method", ["put", "put_if_absent"])
def test_a_directory_that_is_tidied_away_is_made_again(local_store, monkeypatch, method):
    """As when a neighbour deletes the directory's last object just before ours appears."""
    mkdir = Path.mkdir
    tidied = []

    def mkdir_and_tidy(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        if path.name == "b" and path.exists() and len(tidied) < 3:
            path.rmdir()
            tidied.append(path)
            if len(tidied) == 3:  # what mkdir says when the directory goes while it looks
                raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(Path, "mkdir", mkdir_and_tidy)
    assert getattr(local_store, method)("a/b/c", b"1") is not None
    assert len(tidied) == 3
    assert local_store.get("a/b/c") == b"1"


def test_a_directory_that_never_stays_is_an_error(local_store, monkeypatch):
    mkdir = Path.mkdir

    def mkdir_and_tidy(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        if path.name == "b":
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir_and_tidy)
    with pytest.raises(StoreError, match="disappears again and again"):
        local_store.put("a/b/c", b"1")


def test_an_object_that_is_deleted_while_they_are_listed_is_left_out(local_store, monkeypatch):
    local_store.put("a/1", b"1")
    local_store.put("a/2", b"22")
    seen = local_store.entries("a/")
    assert next(seen).key == "a/1"
    names = type(local_store).list

    def list_then_delete(store, prefix):
        for key in names(store, prefix):
            store.delete(key)
            yield key

    monkeypatch.setattr(type(local_store), "list", list_then_delete)
    assert list(local_store.entries("a/")) == []


def test_what_killed_writers_left_is_found_once_it_is_old(local_store):
    assert local_store.leftovers(0.0) == []  # nobody has written: there is no such folder
    local_store.put("k", b"1")
    part = local_store.root / ".tmp" / "part"
    part.write_bytes(b"half")
    written = part.stat().st_mtime
    assert local_store.leftovers(written) == []
    assert local_store.leftovers(written + 1) == [part]


def test_strange_files_are_not_listed(local_store):
    local_store.put("a/b", b"")
    (local_store.root / "a" / ".DS_Store").touch()
    (local_store.root / "a" / "new\nline").touch()
    (local_store.root / os.fsdecode(b"latin\xe9")).touch()
    assert list(local_store.list("")) == ["a/b"]


def test_nothing_is_left_beside_objects(local_store):
    version = local_store.put("a", b"1")
    local_store.put_if_absent("a", b"2")
    local_store.put_if_match("a", b"3", version)
    local_store.put_if_match("a", b"4", version)
    assert list((local_store.root / ".tmp").iterdir()) == []
    assert local_store.get("a") == b"3"


def test_deleting_takes_empty_directories_along(local_store):
    local_store.put("a/b/c/d", b"")
    local_store.put("a/e", b"")
    local_store.delete("a/b/c/d")
    assert not (local_store.root / "a/b").exists()
    assert (local_store.root / "a/e").exists()
    local_store.delete("a/e")
    assert not (local_store.root / "a").exists()
    assert local_store.root.exists()


def test_a_key_below_another_is_refused_clearly(local_store):
    local_store.put("m", b"1")
    local_store.put("d/x", b"1")
    for key in ("m/0", "m/0/1", "d"):
        with pytest.raises(UnusableStoreError, match="regular file stands"):
            local_store.put(key, b"2")
        with pytest.raises(UnusableStoreError, match="regular file stands"):
            local_store.put_if_absent(key, b"2")
        assert not local_store.exists(key)
        local_store.delete(key)
    assert local_store.get("m") == local_store.get("d/x") == b"1"


def test_a_root_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file" / "sub")
    with pytest.raises(UnusableStoreError, match=r"cannot write .*file/sub.*Not a directory") as e:
        check_writable(store)
    assert not e.value.retryable


@pytest.mark.parametrize(
    ("number", "kind", "hint"),
    [
        (errno.EACCES, UnusableStoreError, "right to read and write"),
        (errno.EROFS, UnusableStoreError, "read-only"),
        (errno.ENOSPC, StoreError, "has space"),
    ],
)
def test_what_the_system_says_is_passed_on(local_store, monkeypatch, number, kind, hint):
    def fail(_self, _data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StoreError, match=rf"'a/b'.*{os.strerror(number)}; .*{hint}") as caught:
        local_store.put("a/b", b"")
    assert type(caught.value) is kind
    assert list(local_store.list("")) == []


def test_a_relative_root_is_refused():
    with pytest.raises(UnusableStoreError, match="absolute"):
        LocalStore(Path("somewhere"))


class Forgetful(LocalStore):
    def get(self, key):
        return b"something else"


class Stubborn(LocalStore):
    def delete(self, key):
        pass


class Contrary(LocalStore):
    def put_if_match(self, key, data, version):
        return None


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (Forgetful, "does not return what was written"),
        (Stubborn, "still has an object after deleting it"),
        (Contrary, "refuses If-Match with the version it just gave"),
    ],
)
def test_a_store_that_breaks_its_word_is_found_out(tmp_path, kind, what):
    with pytest.raises(UnusableStoreError, match=what):
        check_writable(kind(tmp_path))
