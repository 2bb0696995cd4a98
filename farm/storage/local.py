"""A directory as an object store, for one machine or a shared file system.

Data is written to a file of its own under `.tmp` and then appears under its key in one step (a hard
link or a rename), so a writer killed at any moment leaves nothing that a reader could see. Both
steps are flushed to disk before a write returns: what was committed outlives a power cut, and a
commit never reaches the disk before the files that it names.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Generator, Iterator, MutableSequence, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from farm.errors import StoreError
from farm.storage.keys import is_key, validate_key, validate_prefix
from farm.storage.store import Entry, MissingKeyError, UnusableStoreError, Version

_T = TypeVar("_T")

_NUM_LOCKS = 64  # enough that two keys seldom share one, few enough to leave lying about
_PLACE_TRIES = 100

_RIGHTS = "give this user the right to read and write there, or choose another store"
_MISFIT = "a regular file stands where a directory is needed, or the reverse: choose another path"
_HINTS = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "the file system is read-only: choose another store",
    errno.ENOTDIR: _MISFIT,
    errno.EEXIST: _MISFIT,
    errno.EISDIR: _MISFIT,
    errno.ENAMETOOLONG: "choose a shorter path",
}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
_NO_LINKS = {errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@dataclass(frozen=True)
class LocalStore:
    """Objects as files below `root`, which is made when the first one is written."""

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_absolute():  # a worker elsewhere has another working directory
            raise UnusableStoreError(
                f"a local store needs an absolute path, not {str(self.root)!r}"
            )

    @property
    def uri(self) -> str:
        return self.root.as_uri()

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._clear_errors("read", key):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise self._missing(key) from error

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        data = self.get(key)
        return data, _version(data)

    def put(self, key: str, data: bytes) -> Version:
        path = self._path(key)
        with self._clear_errors("write", key), self._staged(data) as staged, self._locked(key):
            _place(path, lambda: staged.replace(path))
        return _version(data)

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        path = self._path(key)
        with self._clear_errors("write", key), self._staged(data) as staged, self._locked(key):
            try:
                _place(path, lambda: _link(staged, path))
            except FileExistsError:
                if not path.is_file():  # what exists is a directory, or a file above the key
                    raise
                return None
        return _version(data)

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        path = self._path(key)
        with self._clear_errors("write", key), self._staged(data) as staged, self._locked(key):
            try:
                current = path.read_bytes()
            except FileNotFoundError:
                return None
            if _version(current) != version:
                return None
            staged.replace(path)
            _sync_directory(path.parent)
        return _version(data)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._clear_errors("delete", key), self._locked(key):
            try:
                path.unlink(missing_ok=True)
            except (IsADirectoryError, NotADirectoryError):
                return  # nothing under exactly this key
            with suppress(OSError):  # not empty, or somebody was quicker: both are fine
                for parent in path.relative_to(self.root).parents[:-1]:
                    (self.root / parent).rmdir()

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._clear_errors("read", key):
            return path.is_file()

    def size(self, key: str) -> int:
        path = self._path(key)
        with self._clear_errors("read", key):
            try:
                about = path.stat()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise self._missing(key) from error
        if not stat.S_ISREG(about.st_mode):
            raise self._missing(key)
        return about.st_size

    def list(self, prefix: str) -> Iterator[str]:
        validate_prefix(prefix)
        directory, _, _ = prefix.rpartition("/")
        return self._walk(directory, prefix)

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        for key in self.list(prefix) if deep else self._beside(prefix):
            try:
                about = self._path(key).stat()
            except FileNotFoundError:
                continue  # deleted meanwhile
            yield Entry(key, about.st_size, about.st_mtime)

    def names(self, prefix: str) -> Iterator[str]:
        validate_prefix(prefix)
        directory = prefix.removesuffix("/")
        with self._clear_errors("list", directory):
            try:
                with os.scandir(self.root / directory) as entries:
                    found = sorted(entry.name for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return iter(())
        return filter(is_key, found)

    def put_file(self, key: str, path: Path) -> None:
        placed = self._path(key)
        with (
            self._clear_errors("write", key),
            self._staged_by(lambda staged: shutil.copyfile(path, staged)) as staged,
            self._locked(key),
        ):
            _place(placed, lambda: staged.replace(placed))

    def get_file(self, key: str, path: Path) -> None:
        stored = self._path(key)
        with self._clear_errors("read", key):
            try:
                shutil.copyfile(stored, path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise self._missing(key) from error

    def leftovers(self, older_than: float) -> Sequence[Path]:
        """Files of writers that were killed: never part of any object.

        Args:
            older_than: Unix time; younger ones may be somebody's who still writes.
        """
        found: MutableSequence[Path] = []
        with self._clear_errors("list", ".tmp"), suppress(FileNotFoundError):
            for path in (self.root / ".tmp").iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < older_than:
                        found.append(path)
        return found

    def _beside(self, prefix: str) -> Iterator[str]:
        """Keys that start with a prefix and have no further slash."""
        validate_prefix(prefix)
        directory, _, _ = prefix.rpartition("/")
        return self._walk(directory, prefix, deep=False)

    def _walk(self, directory: str, prefix: str, *, deep: bool = True) -> Iterator[str]:
        with self._clear_errors("list", directory):
            try:
                with os.scandir(self.root / directory) as entries:
                    # With its slash a directory sorts as the keys below it do.
                    names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return
        for name in names:
            key = f"{directory}/{name}" if directory else name
            if not key.startswith(prefix) or not is_key(key.removesuffix("/")):
                continue  # a name that is no key is a file of our own, or a stranger's
            if not name.endswith("/"):
                yield key
            elif deep:
                yield from self._walk(key.removesuffix("/"), prefix)

    def _missing(self, key: str) -> MissingKeyError:
        return MissingKeyError(f"there is no {key!r} in {self.uri}")

    def _path(self, key: str) -> Path:
        return self.root / validate_key(key)

    def _staged(self, data: bytes) -> AbstractContextManager[Path]:
        return self._staged_by(lambda staged: staged.write_bytes(data))

    @contextmanager
    def _staged_by(self, write: Callable[[Path], object]) -> Generator[Path, None, None]:
        staged = self.root / ".tmp" / uuid.uuid4().hex
        for made in _make_directory(staged.parent):
            _sync_directory(made.parent)
        try:
            write(staged)
            _sync(staged)
            yield staged
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, key: str) -> Generator[None, None, None]:
        """One writer of a key at a time, on all processes; the kernel frees a dead one's lock."""
        slot = hashlib.sha256(key.encode()).digest()[0] % _NUM_LOCKS
        path = self.root / ".locks" / f"{slot:02d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as lock:  # flock is per open file, so threads exclude each other too
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _clear_errors(self, action: str, key: str) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            hint = _HINTS.get(error.errno or 0)
            where = f"cannot {action} {key!r} in {self.uri}: {error.strerror or error}"
            if hint is None:
                raise StoreError(f"{where}; see that the disk is there and has space") from error
            raise UnusableStoreError(f"{where}; {hint}") from error


def _version(data: bytes) -> Version:
    return hashlib.sha256(data).hexdigest()


def _place(path: Path, step: Callable[[], _T]) -> _T:
    """Do the step in the key's directory, which who deletes a neighbour may take away meanwhile.

    When this returns, the new name is on disk, and so are those of directories that were not there.
    """
    for _ in range(_PLACE_TRIES):
        with suppress(FileNotFoundError):
            made = _make_directory(path.parent)
            result = step()
            for directory in (path.parent, *(new.parent for new in made)):
                _sync_directory(directory)
            return result
    raise FileNotFoundError(errno.ENOENT, "its directory disappears again and again", str(path))


def _make_directory(directory: Path) -> list[Path]:
    """What was missing of the directory and those above it, the innermost first."""
    missing = list(takewhile(lambda path: not path.exists(), (directory, *directory.parents)))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if directory.exists():
            raise
        # It was there, and went before mkdir saw that it is a directory.
        raise FileNotFoundError(errno.ENOENT, "disappeared", str(directory)) from None
    return missing


def _sync_directory(directory: Path) -> None:
    try:
        _sync(directory)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:  # some network file systems do it by themselves
            raise


def _sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(staged: Path, path: Path) -> None:
    try:
        path.hardlink_to(staged)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():  # no hard links on this file system: the lock we hold must do
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from error
        staged.replace(path)
