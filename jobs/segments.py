"""A growing log in an object store: lines in segments, of which the last is put again as it grows.

An object cannot be appended to. So the newest segment is rewritten now and then, until it is full
and the next one begins: many lines cost few objects, and who reads sees whole lines.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from farm.errors import StoreError
from farm.storage.store import MissingKeyError, Store

_FULL_BYTES = 1 << 20
_DIGITS = 6


@dataclass
class SegmentLog:
    """Writes one log; only one writer has its name.

    Attributes:
        store: where.
        prefix: of the segments' keys, with the writer's name in it; `<prefix>-000000.jsonl` is the
            first.
        every: seconds between two writings of the newest segment.
        clock: seconds, monotonic.
    """

    store: Store
    prefix: str
    every: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _lines: list[bytes] = field(default_factory=list[bytes])
    _size: int = 0
    _number: int = 0
    _unwritten: bool = False
    _written_at: float | None = None

    def add(self, line: bytes) -> None:
        """Note a line without its line break; it is written some seconds later."""
        self._lines.append(line + b"\n")
        self._size += len(line) + 1
        self._unwritten = True

    def flush_if_due(self) -> None:
        """Write what is new, if it is time; a store that fails is asked again the next time."""
        now = self.clock()
        due = self._written_at is None or now - self._written_at >= self.every
        if not self._unwritten or not (due or self._size > _FULL_BYTES):
            return
        self._written_at = now
        try:
            self.flush()
        except StoreError as error:
            if not error.retryable:
                raise

    def flush(self) -> None:
        """Write what is new.

        Raises:
            StoreError: the store failed; nothing is lost, it can be tried again.
        """
        if self._unwritten:
            key = f"{self.prefix}-{self._number:0{_DIGITS}d}.jsonl"
            self.store.put(key, b"".join(self._lines))
            self._unwritten = False
            if self._size > _FULL_BYTES:
                self._lines, self._size = [], 0
                self._number += 1


@dataclass(frozen=True)
class LogPlace:
    """How far somebody has read; `LogPlace()` is the beginning."""

    key: str = ""
    offset: int = 0


def read_log(
    store: Store, prefix: str, place: LogPlace | None = None
) -> Iterator[tuple[bytes, LogPlace]]:
    """Lines of all logs below a prefix, in the order of their keys, each with where it ends.

    Args:
        store: where.
        prefix: folder of the logs; ends in a slash.
        place: behind which to go on; the beginning if None.

    Raises:
        StoreError: the store failed.
    """
    place = place or LogPlace()
    for key in store.list(prefix):
        if key < place.key:
            continue
        try:
            data = store.get(key)
        except MissingKeyError:
            continue  # deleted meanwhile
        end = place.offset if key == place.key else 0
        for line in data[end:].splitlines(keepends=True):
            end += len(line)
            yield line.rstrip(b"\n"), LogPlace(key, end)
