"""Runs jobs: each line of a manifest becomes an edit with low priority, bounded in flight.

A line's id is a digest of its job and number, so a manifest that is read again after a crash finds
the edits that exist already.
"""

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, TypeVar

from farm.errors import CorruptArtifactError, FarmError, InvalidRequestError, UnavailableError
from serve.admission import Refusal
from serve.edits import cancelled_soon, new_record
from serve.forms import parse_json_object
from serve.forms import submission as read_fields
from serve.intake import CheckedEdit, Intake, Submission
from serve.ledger import Ledger
from serve.problems import ProblemError, code_of, safe_detail
from serve.records import EditRecord, Failure, JobRecord, line_id

_log = logging.getLogger("editfarm.serve")
_T = TypeVar("_T")

_NOTE_SECONDS = 2.0
_RETRY_SECONDS = 5.0
_KEPT_REFUSALS = 100
_PICTURE_PAUSES = (1.0, 4.0, 15.0, 60.0)
"""Seconds between tries to read a line's picture: an outage of a minute refuses no line."""

_LONGEST_WAIT = 5.0
"""Seconds after which a tenant's limit is asked again, as somebody may have made room."""


class LineDoor(Protocol):
    """The dispatcher, to whom a job's lines are edits like others."""

    async def admit_line(self, tenant: str, name: str, pixels: int) -> Refusal | None:
        """Hold a place for a line's edit, or say why not."""
        ...

    async def release(self, tenant: str, name: str) -> None:
        """See `serve.doors.DispatcherDoor`."""
        ...

    def line_accepted(self, record: EditRecord) -> None:
        """The edit's record is in the store now."""
        ...

    async def run_line(self, record: EditRecord) -> EditRecord | None:
        """Queue an accepted edit and wait for its end; the record afterwards."""
        ...


@dataclass
class _Tally:
    """How a job's lines went so far."""

    counts: Counter[str] = field(default_factory=Counter[str])
    refusals: dict[int, str] = field(default_factory=dict[int, str])
    noted: float = 0.0
    running: set[str] = field(default_factory=set[str])
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one line that asks for admission: another would be told the same."""
    waits_for: str | None = None


class JobRunner:
    """The dispatcher's jobs.

    Args:
        ledger: of records.
        intake: reads manifests and checks lines.
        door: to the dispatcher.
        threads: for whatever blocks.
    """

    def __init__(
        self, ledger: Ledger, intake: Intake, door: LineDoor, threads: ThreadPoolExecutor
    ) -> None:
        self._ledger, self._intake = ledger, intake
        self._door, self._threads = door, threads
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def start(self, tenant: str, name: str) -> None:
        """Run a job, unless it runs."""
        key = tenant, name
        if key not in self._tasks:
            self._tallies[key] = _Tally()
            task = asyncio.create_task(self._run_for_sure(tenant, name))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    def num_running(self, tenant: str) -> int:
        """A tenant's jobs that have not ended."""
        return sum(owner == tenant for owner, _ in self._tasks)

    def stop(self, tenant: str, name: str) -> list[str]:
        """Start no further line of a job that its record calls cancelled; those that run."""
        tally = self._tallies.get((tenant, name))
        return [] if tally is None else sorted(tally.running)

    async def close(self) -> None:
        """Leave all jobs to the next dispatcher."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_for_sure(self, tenant: str, name: str) -> None:
        """What the machine does to a job is tried again until it is over."""
        while True:
            try:
                job = await self._io(self._ledger.job, tenant, name)
                if job is not None:
                    if not job.is_final:
                        job = await self._run(job)
                    await self._io(self._ledger.settle_job, job)
            except UnavailableError as error:
                _log.warning("job %s waits: %s", name, type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
            except FarmError:
                _log.exception("job %s: its record cannot be handled", name)
                return
            else:
                self._tallies.pop((tenant, name), None)
                return

    async def _run(self, job: JobRecord) -> JobRecord:
        tally = self._tallies[(job.tenant, job.id)] = _Tally()
        try:
            manifest = await self._io(_spooled, await self._manifest(job))
        except InvalidRequestError as error:
            failure = Failure(code=code_of(error), detail=safe_detail(error))
            return await self._end(job, {"state": "failed", "failure": failure})
        room = asyncio.Semaphore(job.max_in_flight)
        num_lines, is_read = 0, False
        try:
            async with asyncio.TaskGroup() as group:
                for number, line in _lines(manifest):
                    num_lines += 1
                    await room.acquire()
                    if await self._is_over(job):
                        break
                    task = group.create_task(self._line(job, number, line, tally))
                    task.add_done_callback(lambda _: room.release())
                else:
                    is_read = True
        except ExceptionGroup as group:
            foreseen = group.subgroup(FarmError)
            if foreseen is None:
                raise
            raise foreseen.exceptions[0] from group
        finally:
            manifest.close()
        ended = {"state": "done", "counts": dict(tally.counts), "refusals": tally.refusals}
        return await self._end(job, {**ended, "lines": num_lines if is_read else None})

    async def _line(self, job: JobRecord, number: int, line: bytes, tally: _Tally) -> None:
        name = line_id(job, number)
        tally.running.add(name)
        try:
            record = await self._io(self._ledger.read, job.tenant, name)
            if record is None:
                record = await self._taken(job, name, line, tally)
                if record is None:
                    return
                if await self._is_over(job):  # cancelled before this edit could be
                    await self._io(self._ledger.change, job.tenant, name, cancelled_soon)
            if not record.is_final:
                record = await self._door.run_line(record)
            tally.counts[record.state if record is not None else "deleted"] += 1
        except CorruptArtifactError:
            _log.exception("job %s: the record of line %d cannot be handled", job.id, number)
            _refuse(tally, number, "its record is damaged; the operator's log says how")
        except (InvalidRequestError, ProblemError) as error:
            said = error.detail if isinstance(error, ProblemError) else safe_detail(error)
            _refuse(tally, number, said)
        finally:
            tally.running.discard(name)
            await self._door.release(job.tenant, name)

    async def _taken(
        self, job: JobRecord, name: str, line: bytes, tally: _Tally
    ) -> EditRecord | None:
        """A line as an accepted edit, when its tenant's limits let it in; None: the job is over.

        While it waits nothing is held of its pictures, which are read again then.
        """
        submission, checked = await self._checked(job, line)
        if await self._door.admit_line(job.tenant, name, checked.pixels) is not None:
            pixels = checked.pixels
            del submission, checked
            if not await self._admitted(job, name, pixels, tally):
                return None
            submission, checked = await self._checked(job, line)

        async def take() -> EditRecord:
            record = await self._io(self._accept, job, name, submission, checked)
            self._door.line_accepted(record)
            return record

        return await asyncio.shield(asyncio.create_task(take()))  # counted if it is accepted

    async def _admitted(self, job: JobRecord, name: str, pixels: int, tally: _Tally) -> bool:
        """Wait until the tenant's limits let one more edit in; False if the job ended before."""
        async with tally.turn:
            waited = _NOTE_SECONDS
            try:
                while True:
                    if waited >= _NOTE_SECONDS:
                        waited = 0.0
                        if await self._is_over(job):
                            return False
                    refusal = await self._door.admit_line(job.tenant, name, pixels)
                    if refusal is None:
                        return True
                    tally.waits_for = refusal.detail
                    pause = min(refusal.retry_after, _LONGEST_WAIT)
                    await asyncio.sleep(pause)
                    waited += pause
            finally:
                tally.waits_for = None

    async def _manifest(self, job: JobRecord) -> bytes:
        """The job's lines.

        Raises:
            InvalidRequestError: there are none, or their store does not give them.
            StoreError: that store, or the farm's own, does not answer: a job waits for both.
        """
        return await self._given(
            job, lambda: self._intake.read_manifest(job.manifest), "the manifest", waits=True
        )

    async def _checked(self, job: JobRecord, line: bytes) -> tuple[Submission, CheckedEdit]:
        """A line as an edit that can be run.

        Raises:
            InvalidRequestError: it is no edit, or a store does not give its pictures.
            StoreError: the farm's own store does not answer either, so no line is to blame.
        """
        return await self._given(
            job, lambda: self._check(job, line), "its picture or mask", waits=False
        )

    async def _given(self, job: JobRecord, read: Callable[[], _T], what: str, *, waits: bool) -> _T:
        """What a store gives, which is asked a few times.

        Args:
            job: for which it is.
            read: asks.
            what: it is.
            waits: whether an outage of that store is the job's, and not a refusal.
        """
        pauses, tried = iter(_PICTURE_PAUSES), 0
        while True:
            tried += 1
            try:
                return await self._io(read)
            except InvalidRequestError:
                raise
            except FarmError as error:
                # raises where the records cannot be read: then the job begins again, as ever
                over = await self._is_over(job)
                pause = next(pauses, None)
                # credentials may have been renewed meanwhile: a second try has the new ones
                if pause is None or over or (tried > 1 and not error.retryable):
                    if waits and error.retryable:
                        raise
                    _log.warning("job %s: %s is refused: %s", job.id, what, error.message)
                    raise InvalidRequestError(
                        f"{what} cannot be read: see that the farm has the right to read the "
                        "object, and that it is not archived"
                    ) from error
            await asyncio.sleep(pause)

    def _check(self, job: JobRecord, line: bytes) -> tuple[Submission, CheckedEdit]:
        most = self._intake.limits.max_json_bytes
        if len(line) > most:
            raise InvalidRequestError(f"it has {len(line):,} bytes, and {most:,} is the most")
        fields = {"priority": "batch", **parse_json_object(line)}
        for picture in ("image", "mask"):
            named = fields.get(picture)
            if isinstance(named, str) and "://" not in named and not named.endswith(":"):
                fields[picture] = (
                    f"{job.manifest.rpartition('/')[0]}/{named}"  # beside the manifest
                )
        submission = read_fields(fields, ())
        return submission, self._intake.check(job.tenant, submission)

    def _accept(
        self, job: JobRecord, name: str, submission: Submission, checked: CheckedEdit
    ) -> EditRecord:
        record = new_record(job.tenant, name, submission, checked)
        return self._ledger.accept(
            record.model_copy(update={"job": job.id}), checked.image, checked.mask
        )

    async def _is_over(self, job: JobRecord) -> bool:
        """Whether somebody cancelled the job; notes how it goes now and then."""
        tally = self._tallies[(job.tenant, job.id)]
        now = time.monotonic()
        if now - tally.noted < _NOTE_SECONDS:
            found = await self._io(self._ledger.job, job.tenant, job.id)
        else:
            tally.noted = now
            counts = {
                "counts": dict(tally.counts),
                "refusals": tally.refusals,
                "waits_for": tally.waits_for,
            }
            found = await self._change(job, counts)
        return found is None or found.is_final

    async def _end(self, job: JobRecord, changes: dict[str, Any]) -> JobRecord:
        ended = {**changes, "waits_for": None, "finished": time.time()}
        return await self._change(job, ended) or job

    async def _change(self, job: JobRecord, changes: dict[str, Any]) -> JobRecord | None:
        """What a cancelled job has done is still noted; its state stays."""

        def step(found: JobRecord) -> JobRecord:
            kept = {"state": found.state, "finished": found.finished} if found.is_final else {}
            return found.model_copy(update={**changes, **kept})

        return await self._io(self._ledger.change_job, job.tenant, job.id, step)

    async def _io(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _refuse(tally: _Tally, number: int, detail: str) -> None:
    tally.counts["refused"] += 1
    if len(tally.refusals) < _KEPT_REFUSALS:
        tally.refusals[number] = detail


def _spooled(manifest: bytes) -> IO[bytes]:
    """A manifest in a file that nobody else sees: a job may run for days."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever asked closes it
    file.write(manifest)
    file.seek(0)
    return file


def _lines(manifest: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(manifest, start=1):
        if line.strip():
            yield number, line
