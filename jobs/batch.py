"""A manifest as one job: every line checked first, then only what is missing is run.

No Ray here: who runs the edits is handed in. Neither pass holds the manifest in memory.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from farm.calls import Executor
from farm.errors import EditCancelledError, FarmError, InvalidRequestError
from farm.images import decode_image
from farm.results import EditResult
from farm.runner import PreparedEdit, load_result, prepare
from farm.storage.layout import edits_prefix, job_file_key
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.dispatch import Ended, Flight, Message, Messages, Watch
from jobs.history import History, RowDigests
from jobs.importers import Reading
from jobs.manifests import BrokenLine, ManifestLine
from jobs.outcomes import DoneEdit, FailedEdit, failed_edit
from jobs.patience import Patience
from jobs.sources import Pictures

__all__ = [
    "Batch",
    "EditRunner",
    "Message",
    "Messages",
    "OpenRunner",
    "Survey",
    "Watch",
    "check_lines",
    "run_missing",
    "running_name",
    "survey",
]

_LOOKUPS = 16  # commits that are read at once
_AHEAD = 256  # rows that are looked at before the oldest lookup must be there
_DRAWING_PATIENCE = 5.0  # seconds for one try at a picture; between two the job does other things

Outcome: TypeAlias = DoneEdit | FailedEdit
RunAll: TypeAlias = Callable[[Iterable[tuple[str, PreparedEdit]]], Iterator[Ended]]


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

    def flight(self, *, budget: float | None, hang_seconds: float) -> Flight:
        """The same, for a `jobs.dispatch.Dispatcher`.

        Args:
            budget: accelerator seconds that one edit may cost.
            hang_seconds: see `jobs.dispatch.Limits`.
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
    address: str = ""
    """Where the manifest came from, if it is a copy; its pictures lie beside it there."""

    @property
    def name(self) -> str:
        """Of the manifest, for people."""
        return self.address or str(self.manifest)

    def lines(self) -> Iterator[ManifestLine | BrokenLine]:
        return self.reading.lines(self.manifest, model_set=self.model_set.name)

    def pictures(self) -> Pictures:
        return Pictures.beside(self.name)

    def prepared(self, line: ManifestLine, pictures: Pictures | None = None) -> PreparedEdit:
        """The line's edit, checked whole.

        Raises:
            InvalidRequestError: or one of its children, saying what to change; also where its own
                picture cannot be had, for good.
            StoreError: its picture lies in a bucket that does not answer, and may yet.
        """
        pictures = pictures or self.pictures()
        try:
            if line.truth is not None:
                decode_image(pictures.read(line.truth))
            drawn = line.request.drawn_mask
            mask = None if drawn is None else pictures.read(drawn)
            image = pictures.read(line.request.image)
            return prepare(line.request, image, self.model_set, mask=mask)
        except InvalidRequestError as error:
            raise line.placed(error) from error

    def done(
        self, line: ManifestLine, result: EditResult, seconds: float, *, tries: int = 0, row: str
    ) -> DoneEdit:
        """The outcome of a committed edit; its true picture goes into the store for the report.

        Raises:
            StoreError: the true picture cannot be read or stored.
        """
        return DoneEdit(
            line=line.number,
            variant=line.variant,
            name=line.name,
            request=line.request,
            seconds=seconds,
            tries=tries,
            row=row,
            result=result,
            truth=self._kept_truth(line),
        )

    def _kept_truth(self, line: ManifestLine) -> str | None:
        """Key of the line's true picture; None where it has none, or none any more."""
        if line.truth is None:
            return None
        key = job_file_key(self.tenant, self.job, f"truth/{line.number}")
        with suppress(InvalidRequestError):  # it went since the row was checked
            self.store.put(key, self.pictures().read(line.truth))
            return key
        return None


@dataclass
class Survey:
    """What the first pass found.

    Attributes:
        missing: edits that must be run.
        remembered: edits whose outcome an earlier run had left.
        latest_is_new: whether no earlier run had left the outcome that `survey` gave last.
    """

    missing: int = 0
    remembered: int = 0
    latest_is_new: bool = True
    _settled: bytearray = field(default_factory=bytearray)
    """By place among the edits of the manifest: whether it has its outcome."""

    @property
    def total(self) -> int:
        return len(self._settled)

    def note(self, *, settled: bool) -> None:
        """The next edit of the manifest."""
        self._settled.append(settled)
        self.missing += not settled

    def is_settled(self, place: int) -> bool:
        """Whether that edit has its outcome; one that the manifest did not have then has none."""
        return place < len(self._settled) and bool(self._settled[place])


def check_lines(batch: Batch) -> Iterator[ManifestLine | FailedEdit]:
    """Every line checked whole, without a store: itself if it is right, or why it is wrong.

    Raises:
        InvalidManifestError: the manifest cannot be read.
    """
    pictures = batch.pictures()
    for line in batch.lines():
        if isinstance(line, BrokenLine):
            yield _broken(line)
            continue
        try:
            batch.prepared(line, pictures)
        except InvalidRequestError as error:
            yield _refused(line, error)
        else:
            yield line


def survey(batch: Batch, found: Survey, history: History | None = None) -> Iterator[Outcome]:
    """First pass: outcomes of lines that are wrong, or whose edit is in the store already.

    One listing says which edits the store may have; only for those that are new to this job a
    commit is read, many at once.

    Raises:
        InvalidManifestError: the manifest cannot be read.
        StoreError: the store cannot.
    """
    looker = _Looker(batch, history, set(batch.store.names(edits_prefix(batch.tenant))))
    window: deque[tuple[_Looked, bool]] = deque()
    with ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="commits") as pool:
        for line in batch.lines():
            window.append(looker.look(line, pool))
            if len(window) >= _AHEAD:
                yield from _noted(found, *window.popleft())
        while window:
            yield from _noted(found, *window.popleft())


_Looked: TypeAlias = Outcome | Future[DoneEdit | None] | None


def _noted(found: Survey, looked: _Looked, is_new: bool) -> Iterator[Outcome]:
    outcome = looked.result() if isinstance(looked, Future) else looked
    found.note(settled=outcome is not None)
    if outcome is not None:
        found.latest_is_new = is_new
        found.remembered += not is_new
        yield outcome


class _Looker:
    """Finds what is known of each line."""

    def __init__(self, batch: Batch, history: History | None, existing: set[str]) -> None:
        self.batch, self.history, self.existing = batch, history, existing
        self.pictures = batch.pictures()
        self.digests = RowDigests(batch.model_set, self.pictures)
        self.trusted: dict[str, bool] = {}

    def look(
        self, line: ManifestLine | BrokenLine, pool: ThreadPoolExecutor
    ) -> tuple[_Looked, bool]:
        """What is known of the line, or soon; and whether no earlier run of the job knew it."""
        if isinstance(line, BrokenLine):
            return _broken(line), True
        row = self.digests.of(line)
        known = self._remembered(line, row)
        if known is not None:
            return known, False
        try:
            edit_id = self.batch.prepared(line, self.pictures).edit_id
        except InvalidRequestError as error:
            return _refused(line, error), True
        if edit_id not in self.existing:
            return None, True
        return pool.submit(self._commit, line, edit_id, row), True

    def _remembered(self, line: ManifestLine, row: str) -> Outcome | None:
        known = None if self.history is None else self.history.find(row)
        if isinstance(known, DoneEdit):
            if known.result.edit_id not in self.existing or not self._trusts(line, known):
                return None
            result = known.result.model_copy(update={"reused": True})
            return known.model_copy(update={"result": result, "seconds": 0.0, "tries": 0})
        return known

    def _trusts(self, line: ManifestLine, known: DoneEdit) -> bool:
        """Whether the first row of the method still gives the edit that its digest gave."""
        method = line.request.method
        if method not in self.trusted:
            try:
                found = self.batch.prepared(line, self.pictures).edit_id
            except InvalidRequestError:
                return False  # this row alone: its picture went meanwhile
            self.trusted[method] = found == known.result.edit_id
        return self.trusted[method]

    def _commit(self, line: ManifestLine, edit_id: str, row: str) -> DoneEdit | None:
        result = load_result(self.batch.store, self.batch.tenant, edit_id)
        return None if result is None else self.batch.done(line, result, 0.0, row=row)


def _broken(line: BrokenLine) -> FailedEdit:
    return failed_edit(line.number, line.name, line.error, request=None, variant=line.variant)


def _refused(line: ManifestLine, error: FarmError) -> FailedEdit:
    return failed_edit(line.number, line.name, error, request=line.request, variant=line.variant)


def running_name(line: int, name: str) -> str:
    """A line's name while it runs: unique, whatever users call their edits."""
    return f"{line}:{name}"


def run_missing(
    batch: Batch, run: RunAll, found: Survey, patience: Patience | None = None
) -> Iterator[Outcome]:
    """Second pass: run what the first found missing, drawn as `run` asks for it.

    Args:
        batch: of which.
        run: runs edits.
        found: by the first pass.
        patience: for pictures that cannot be read, and true ones that cannot be stored; none if
            not given. When it is told to give up, no more is drawn.

    Raises:
        StoreError: such a picture, when patience has ended.
    """
    drawn: dict[str, tuple[ManifestLine, str]] = {}
    changed: list[FailedEdit] = []
    patience = patience or Patience()
    pictures = Pictures.beside(batch.name, patience=_DRAWING_PATIENCE)
    digests = RowDigests(batch.model_set, pictures)

    def read(line: ManifestLine) -> tuple[str, PreparedEdit]:
        # The digest first: of a picture that is replaced now, it is the old one's at worst, and
        # the next run looks again. The other way round it would take the row for done.
        row = digests.of(line)
        return row, batch.prepared(line, pictures)

    def edits() -> Iterator[tuple[str, PreparedEdit]]:
        for place, line in enumerate(batch.lines()):
            if found.is_settled(place) or isinstance(line, BrokenLine):
                continue
            name = running_name(line.number, line.name)
            try:
                row, prepared = patience.again(name, partial(read, line))
            except InvalidRequestError as error:  # it was right in the first pass
                changed.append(_refused(line, error))
                continue
            except EditCancelledError:
                return  # who runs the edits hears the same wish
            drawn[name] = line, row
            yield name, prepared

    for ended in run(edits()):
        line, row = drawn.pop(ended.name)
        try:
            outcome = patience.again(ended.name, partial(_outcome, batch, line, ended, row))
        except EditCancelledError:  # without a row it is in no log: the next run adds the picture
            outcome = _outcome(batch, replace(line, truth=None), ended, "")
        yield outcome
    yield from changed


def _outcome(batch: Batch, line: ManifestLine, ended: Ended, row: str) -> Outcome:
    found: Mapping[str, Any] = {"seconds": ended.seconds, "tries": ended.tries, "row": row}
    if isinstance(ended.outcome, FarmError):
        return failed_edit(
            line.number,
            line.name,
            ended.outcome,
            request=line.request,
            variant=line.variant,
            **found,
        )
    return batch.done(line, ended.outcome, ended.seconds, tries=ended.tries, row=row)
