"""Doubles at the edge of the farm: a clock, and a store whose replies get lost."""

from collections.abc import Callable, Iterator
from pathlib import Path

from farm.errors import StoreError
from farm.storage.store import Entry, Store, Version


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class WrappedStore:
    """Another store, with a chance to interfere: `before(method, key)`, `after(method, key)`."""

    def __init__(
        self,
        store: Store,
        before: Callable[[str, str], None] = lambda _method, _key: None,
        after: Callable[[str, str], None] = lambda _method, _key: None,
    ) -> None:
        self.store = store
        self.before = before
        self.after = after

    @property
    def uri(self) -> str:
        return self.store.uri

    def _call(self, method: str, key: str, *arguments: object, **options: object):
        self.before(method, key)
        result = getattr(self.store, method)(key, *arguments, **options)
        self.after(method, key)
        return result

    def get(self, key: str) -> bytes:
        return self._call("get", key)

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        return self._call("get_with_version", key)

    def put(self, key: str, data: bytes) -> Version:
        return self._call("put", key, data)

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        return self._call("put_if_absent", key, data)

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        return self._call("put_if_match", key, data, version)

    def delete(self, key: str) -> None:
        return self._call("delete", key)

    def exists(self, key: str) -> bool:
        return self._call("exists", key)

    def size(self, key: str) -> int:
        return self._call("size", key)

    def list(self, prefix: str) -> Iterator[str]:
        return self._call("list", prefix)

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        return self._call("entries", prefix, deep=deep)

    def names(self, prefix: str) -> Iterator[str]:
        return self._call("names", prefix)

    def put_file(self, key: str, path: Path) -> None:
        return self._call("put_file", key, path)

    def get_file(self, key: str, path: Path) -> None:
        return self._call("get_file", key, path)


class LosesReplies(WrappedStore):
    """The first `times` calls of a method on keys that end so are done, then seem to fail."""

    def __init__(self, store: Store, method: str, ending: str, times: int = 1) -> None:
        super().__init__(store, after=self._lose)
        self.method = method
        self.ending = ending
        self.left = times

    def _lose(self, method: str, key: str) -> None:
        if method == self.method and key.endswith(self.ending) and self.left > 0:
            self.left -= 1
            raise StoreError("connection reset by peer")


class RefusesOwnSuccess(WrappedStore):
    """What a client that retries by itself makes of a lost reply: done, yet "there is one"."""

    def __init__(self, store: Store, ending: str) -> None:
        super().__init__(store)
        self.ending = ending

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        version = self.store.put_if_absent(key, data)
        return None if key.endswith(self.ending) else version

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        changed = self.store.put_if_match(key, data, version)
        return None if key.endswith(self.ending) else changed
