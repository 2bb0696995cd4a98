"""A store that is asked again while it fails: outages of seconds are nobody's business above.

Each method has the meaning of the store's own. A conditional put whose reply was lost is simply put
again: `Store` already says that "there is one" may be about our own.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from farm.errors import StoreError
from farm.storage.store import Entry, NoCredentialsYetError, Store, Version

_T = TypeVar("_T")
_FIRST_PAUSE = 0.1  # seconds; doubled each time
_LONGEST_PAUSE = 5.0
_LISTING_TRIES = 12  # without a single further key
_CREDENTIALS_PATIENCE = 3.0  # seconds: whoever forgot to set some shall hear of it soon
_CREDENTIALS_TRIES = 3  # of a listing


@dataclass(frozen=True)
class PatientStore:
    """Another store, asked again with ever longer pauses when it fails and may yet answer.

    Attributes:
        store: that is asked.
        patience: seconds after which its error is raised; three at most where credentials lack.
        sleep: waits so many seconds.
        clock: seconds, monotonic.
    """

    store: Store
    patience: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str) -> bytes:
        return self._again(lambda: self.store.get(key))

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        return self._again(lambda: self.store.get_with_version(key))

    def put(self, key: str, data: bytes) -> Version:
        return self._again(lambda: self.store.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        return self._again(lambda: self.store.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        return self._again(lambda: self.store.put_if_match(key, data, version))

    def delete(self, key: str) -> None:
        self._again(lambda: self.store.delete(key))

    def exists(self, key: str) -> bool:
        return self._again(lambda: self.store.exists(key))

    def size(self, key: str) -> int:
        return self._again(lambda: self.store.size(key))

    def put_file(self, key: str, path: Path) -> None:
        self._again(lambda: self.store.put_file(key, path))

    def get_file(self, key: str, path: Path) -> None:
        self._again(lambda: self.store.get_file(key, path))

    def list(self, prefix: str) -> Iterator[str]:
        return self._listed(lambda: self.store.list(prefix), lambda key: key)

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        return self._listed(lambda: self.store.entries(prefix, deep=deep), lambda entry: entry.key)

    def names(self, prefix: str) -> Iterator[str]:
        return iter(self._again(lambda: list(self.store.names(prefix))))

    def _again(self, ask: Callable[[], _T]) -> _T:
        asked = self.clock()
        pause = _FIRST_PAUSE
        while True:
            try:
                return ask()
            except StoreError as error:
                if not error.retryable or self.clock() + pause > asked + self._patience_for(error):
                    raise
            # all who were refused together shall not come back together
            self.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _patience_for(self, error: StoreError) -> float:
        if isinstance(error, NoCredentialsYetError):
            return min(self.patience, _CREDENTIALS_PATIENCE)
        return self.patience

    def _listed(self, ask: Callable[[], Iterator[Any]], key: Callable[[Any], str]) -> Iterator[Any]:
        """A listing that goes on behind what was already given when it broke off."""
        last: bytes | None = None
        failures = 0
        while True:
            source = self._again(ask)
            try:
                for item in source:
                    place = key(item).encode()
                    if last is None or place > last:
                        yield item
                        last, failures = place, 0
            except StoreError as error:
                failures += 1
                lacks = isinstance(error, NoCredentialsYetError)
                most = _CREDENTIALS_TRIES if lacks else _LISTING_TRIES
                if not error.retryable or failures > most:
                    raise
                self.sleep(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))
            else:
                return
