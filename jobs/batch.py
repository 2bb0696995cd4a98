"""A manifest as one job: every line checked first, then only what is missing is run.

No Ray here: who runs the edits is handed in. Neither pass holds the manifest in memory.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from farm.calls import Executor
from farm.errors import FarmError, InvalidRequestError
from farm.images import decode_image
from farm.results import EditResult
from farm.runner import PreparedEdit, load_result, prepare, read_image
from farm.storage.layout import job_file_key
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.importers import Reading
from jobs.manifests import BrokenLine, ManifestLine
from jobs.outcomes import DoneEdit, FailedEdit, failed_edit

Messages: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By name of a running edit: `stage`, `step`, `total` and more of its latest step."""
Watch: TypeAlias = Callable[[Messages], None]


class EditRunner(Protocol):
    """Who runs edits: a farm of actors, or this process."""

    def run(
        self, edits: Iterable[tuple[str, PreparedEdit]], *, in_flight: int, watch: Watch
    ) -> Iterator[tuple[str, EditResult | FarmError]]:
        """Run named edits, drawn as room becomes free; outcomes as they come.

        Args:
            edits: what to run, by names that are unique among those that run.
            in_flight: how many run at once.
            watch: told now and then how far the running ones are.
        """
        ...

    def describe(self) -> list[dict[str, Any]]:
        """Process, device and networks of each backbone."""
        ...

    def executor(self) -> Executor:
        """The frozen networks, for one thread of this process."""
        ...


OpenRunner: TypeAlias = Callable[[], AbstractContextManager[EditRunner]]


@dataclass(frozen=True)
class Batch:
    """One manifest with one model set into one store."""

    manifest: Path
    model_set: ModelSet
    store: Store
    tenant: str
    job: str
    """Name of the job in the store; the same manifest has the same."""
    reading: Reading = field(default_factory=Reading)
    """In which form the manifest is written, and which part of it counts."""

    def lines(self) -> Iterator[ManifestLine | BrokenLine]:
        return self.reading.lines(self.manifest, model_set=self.model_set.name)

    def prepared(self, line: ManifestLine) -> PreparedEdit:
        """The line's edit, checked whole.

        Raises:
            InvalidRequestError: or one of its children, saying what to change.
        """
        try:
            if line.truth is not None:
                decode_image(self._truth(line.truth))
            image = read_image(line.request.image, base=self.manifest.parent)
            return prepare(line.request, image, self.model_set)
        except InvalidRequestError as error:
            raise line.placed(error) from error

    def done(self, line: ManifestLine, result: EditResult, seconds: float) -> DoneEdit:
        """The outcome of a committed edit; its true picture goes into the store for the report."""
        key = None
        if line.truth is not None:
            key = job_file_key(self.tenant, self.job, f"truth/{line.number}")
            self.store.put(key, self._truth(line.truth))
        return DoneEdit(
            line=line.number,
            name=line.name,
            request=line.request,
            seconds=seconds,
            result=result,
            truth=key,
        )

    def _truth(self, path: str) -> bytes:
        return read_image(path, base=self.manifest.parent)


@dataclass
class Survey:
    """What the first pass found.

    Attributes:
        settled: numbers of lines that have their outcome.
        missing: lines that must be run.
    """

    settled: set[int]
    missing: int = 0


def survey(batch: Batch, found: Survey) -> Iterator[DoneEdit | FailedEdit]:
    """First pass: outcomes of lines that are wrong, or whose edit is in the store already.

    Raises:
        InvalidManifestError: the manifest cannot be read.
        StoreError: the store cannot.
    """
    for line in batch.lines():
        outcome = _settle(batch, line)
        if outcome is None:
            found.missing += 1
        else:
            found.settled.add(outcome.line)
            yield outcome


def _settle(batch: Batch, line: ManifestLine | BrokenLine) -> DoneEdit | FailedEdit | None:
    if isinstance(line, BrokenLine):
        return failed_edit(line.number, line.name, line.error, request=None)
    try:
        prepared = batch.prepared(line)
    except InvalidRequestError as error:
        return failed_edit(line.number, line.name, error, request=line.request)
    result = load_result(batch.store, batch.tenant, prepared.edit_id)
    return None if result is None else batch.done(line, result, 0.0)


def running_name(line: int, name: str) -> str:
    """A line's name while it runs: unique, whatever users call their edits."""
    return f"{line}:{name}"


def run_missing(
    batch: Batch, runner: EditRunner, found: Survey, *, in_flight: int, watch: Watch
) -> Iterator[DoneEdit | FailedEdit]:
    """Second pass: run what the first found missing, bounded in flight.

    Raises:
        StoreError: a true picture cannot be stored.
    """
    running: dict[str, tuple[ManifestLine, float]] = {}
    changed: list[FailedEdit] = []

    def edits() -> Iterator[tuple[str, PreparedEdit]]:
        for line in batch.lines():
            if line.number in found.settled or isinstance(line, BrokenLine):
                continue
            try:
                prepared = batch.prepared(line)
            except InvalidRequestError as error:  # it was right in the first pass
                changed.append(failed_edit(line.number, line.name, error, request=line.request))
                continue
            name = running_name(line.number, line.name)
            running[name] = line, time.monotonic()
            yield name, prepared

    for name, outcome in runner.run(edits(), in_flight=in_flight, watch=watch):
        line, started = running.pop(name)
        seconds = time.monotonic() - started
        if isinstance(outcome, FarmError):
            yield failed_edit(
                line.number, line.name, outcome, request=line.request, seconds=seconds
            )
        else:
            yield batch.done(line, outcome, seconds)
    yield from changed
