"""What earlier runs of a job left: outcomes by row, so that a resumed job need not do it all again.

Checking a row whole takes a millisecond and its commit a request; a hundred thousand rows would
take minutes before the first missing edit could start. So each outcome carries a digest of its
row: number and name, request, the picture's size and time of writing, model set and versions. A row
with the same digest has the same edit, and one listing of the store tells which edits are there.

A short cut, no more. The first row of each method is checked whole, and if that gives another edit
than the digest's, the method's code has changed and its history is set aside. A picture that only
seems changed (another time of writing) costs its row the full check.
"""

import hashlib
import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from farm.errors import CorruptArtifactError
from farm.runner import versions
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.manifests import ManifestLine
from jobs.outcomes import DoneEdit, FailedEdit, parse_outcome
from jobs.segments import read_log
from jobs.sources import Pictures

_DIGEST_BYTES = 12
_NOT_FOR_GOOD = {"EditCancelledError", "BudgetExceededError", "UnusableStoreError"}
"""Of that run, not of the edit."""


class RowDigests:
    """Digests of a job's rows."""

    def __init__(self, model_set: ModelSet, pictures: Pictures) -> None:
        self._pictures = pictures
        common = {"weights": model_set.digests, "versions": versions()}
        self._common = hashlib.sha256(json.dumps(common, sort_keys=True).encode())

    def of(self, line: ManifestLine) -> str:
        """Of one row; empty where its picture cannot be seen."""
        named = (line.request.image, line.request.drawn_mask, line.truth)
        signatures = [None if n is None else self._pictures.signature(n) for n in named]
        if any(n is not None and s is None for n, s in zip(named, signatures, strict=True)):
            return ""
        digest = self._common.copy()
        parts = (line.number, line.variant, line.name, *named, *signatures)
        digest.update(json.dumps(parts).encode())
        digest.update(line.request.model_dump_json().encode())
        return digest.digest()[:_DIGEST_BYTES].hex()


class History:
    """Outcomes of earlier runs by row: their text on disk, their places in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[bytes, tuple[int, int, bool]] = {}
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, line: bytes) -> None:
        """Note an outcome in place of an earlier one of its row; a retryable failure is none."""
        about = _json_object(line)
        row = about.get("row")
        if not isinstance(row, str) or len(row) != 2 * _DIGEST_BYTES:
            return
        failed = about.get("status") == "failed"
        if failed and (about.get("retryable") or about.get("kind") in _NOT_FOR_GOOD):
            self._places.pop(bytes.fromhex(row), None)
            return
        self._places[bytes.fromhex(row)] = self._end, len(line), failed
        self._file.seek(self._end)
        self._file.write(line)
        self._end += len(line)

    def forget_failed(self) -> int:
        """Let failed edits be tried again; how many there are."""
        failed = [row for row, (_, _, has_failed) in self._places.items() if has_failed]
        for row in failed:
            del self._places[row]
        return len(failed)

    def find(self, row: str) -> DoneEdit | FailedEdit | None:
        """The outcome of a row, if an earlier run had one for good."""
        place = self._places.get(bytes.fromhex(row)) if row else None
        if place is None:
            return None
        self._file.seek(place[0])
        try:
            return parse_outcome(self._file.read(place[1]))
        except CorruptArtifactError:
            return None  # another version's


@contextmanager
def empty_history() -> Generator[History, None, None]:
    """One that knows nothing yet."""
    with tempfile.TemporaryFile() as file:
        yield History(file)


def load_history(history: History, store: Store, prefix: str) -> None:
    """Read what earlier runs wrote below a prefix.

    Raises:
        StoreError: the store failed.
    """
    for line, _ in read_log(store, prefix):
        history.add(line)


def _json_object(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
