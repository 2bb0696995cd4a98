"""The one process that starts accepted edits and writes down how they ended.

It holds nothing that matters: killed at any moment, its successor reads the pending markers and
goes on. Should two live at once for a moment, edits are run twice and committed once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from farm.errors import CorruptArtifactError, FarmError, UnavailableError
from serve.admission import Admission, Refusal
from serve.attempts import Attempts, board_name, is_to_be_told
from serve.doors import Charged, EditFarm, Snapshot
from serve.edits import cancelled_soon
from serve.eta import Pace
from serve.intake import Intake
from serve.job_runner import JobRunner
from serve.ledger import Ledger, Pending
from serve.limits import TenantLimits
from serve.looks import Looks
from serve.queueing import FairQueue, Waiting
from serve.records import EditRecord, Priority, is_id
from serve.webhooks import Courier

_log = logging.getLogger("editfarm.serve")
_T = TypeVar("_T")

_RESCAN_SECONDS = 10.0
_SNAPSHOT_SECONDS = 0.2
_ORPHAN_SECONDS = 120.0
"""Age from which a marker without a record is left over from a dead replica."""
_LONGEST_PAUSE = 30.0
_SPARE = 0.25
"""Share of a tenant's limits that lines of jobs leave to edits that come one by one."""
_OPENING_SECONDS = 120.0
"""How long a place is held for a job whose manifest is being read."""
_JOB_SECONDS = 60.0
"""When to ask again for a job, of one's own that have not ended."""
_UPLOAD_AGE = 86_400.0
"""Seconds for which an upload can be named; an edit that names it keeps a copy of its own."""
_UPLOADS_SECONDS = 3600.0
"""Between two looks at what was uploaded and not used."""

LimitsOf = Callable[[str], TenantLimits]


@dataclass(frozen=True)
class DispatchOptions:
    """See `serve.settings.Settings`; `first_pause` in seconds after a failure of the machine."""

    max_in_flight: int = 8
    max_queue: int = 10_000
    max_seconds: float = 3600.0
    first_pause: float = 1.0


class Dispatcher:
    """Starts edits, bounded in flight; implements `serve.doors.DispatcherDoor`.

    Args:
        ledger: of records.
        farm: that runs them.
        limits_of: a tenant's.
        courier: delivers webhooks.
        intake: from a record and its image to what the farm runs; checks the lines of jobs.
        options: how many at once, and for how long.
    """

    def __init__(
        self,
        ledger: Ledger,
        farm: EditFarm,
        limits_of: LimitsOf,
        courier: Courier,
        intake: Intake,
        options: DispatchOptions,
    ) -> None:
        self._ledger, self._farm, self._intake = ledger, farm, intake
        self._limits_of, self._courier, self._options = limits_of, courier, options
        self._queue = FairQueue()
        self._admission = Admission(options.max_queue)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="dispatcher")
        self._stopping: set[tuple[str, str]] = set()
        self._telling: dict[tuple[str, str], float | None] = {}  # when it ended, by edit
        self._background: set[asyncio.Task[None]] = set()
        self._pace, self._looks = Pace(), Looks()
        self._snapshot: tuple[float, Snapshot] = (-1.0, Snapshot())
        self._counted: set[str] = set()
        self._closing = False
        self._opening: dict[tuple[str, str], float] = {}
        self._ends: dict[tuple[str, str], list[asyncio.Future[None]]] = {}
        self._attempts = Attempts(
            ledger,
            farm,
            intake,
            self._threads,
            self._stopping,
            self._count_outputs,
            options.max_seconds,
        )
        self._jobs = JobRunner(ledger, intake, self, self._threads)

    async def start(self) -> None:
        """Take up what was accepted and not finished, and go on looking for it."""
        self._farm.start()
        self._spawn(self._rescan_for_ever())
        self._spawn(self._sweep_uploads_for_ever())

    async def close(self) -> None:
        """End all tasks; edits that run are left to the next dispatcher."""
        self._closing = True
        await self._jobs.close()
        tasks = [*self._background, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._farm.close()
        self._threads.shutdown(wait=True)

    async def admit(self, tenant: str, name: str, pixels: int) -> Refusal | None:
        return await self._admit(tenant, name, pixels, spare=0.0)

    async def _admit(self, tenant: str, name: str, pixels: int, *, spare: float) -> Refusal | None:
        limits = await self._counted_limits(tenant)
        return self._admission.admit(
            tenant,
            limits,
            name,
            pixels=pixels,
            waiting=len(self._queue) + len(self._running),
            waiting_of_tenant=self._queue.count(tenant) + self._num_running(tenant),
            spare=spare,
        )

    async def admit_line(self, tenant: str, name: str, pixels: int) -> Refusal | None:
        """As `admit`, but some of the tenant's limits is left for edits that somebody waits for.

        A line waits here and would be there at the very moment when a limit lets one more in.
        """
        return await self._admit(tenant, name, pixels, spare=_SPARE)

    async def charge(self, tenant: str, what: Charged, name: str) -> Refusal | None:
        limits = await self._counted_limits(tenant)
        if what == "upload":
            return self._admission.charge(tenant, limits)
        now = time.monotonic()
        self._opening = {key: until for key, until in self._opening.items() if until > now}
        jobs = self._jobs.num_running(tenant) + sum(owner == tenant for owner, _ in self._opening)
        if limits.max_jobs is not None and jobs >= limits.max_jobs:
            detail = f"{jobs} of your jobs are not finished, and {limits.max_jobs} is the most"
            return Refusal("too_many_jobs", detail, _JOB_SECONDS)
        refusal = self._admission.charge(tenant, limits)
        if refusal is None:
            self._opening[(tenant, name)] = now + _OPENING_SECONDS
        return refusal

    async def accept(self, tenant: str, name: str, priority: Priority, stored_bytes: int) -> None:
        self._admission.release(tenant, name)
        self._admission.stored(tenant, stored_bytes)
        self._enqueue(Waiting(tenant, name, priority))

    async def release(self, tenant: str, name: str) -> None:
        self._admission.release(tenant, name)
        self._opening.pop((tenant, name), None)

    async def cancel(self, tenant: str, name: str) -> None:
        """See `DispatcherDoor`; what waits is ended at once, what runs between two of its steps."""
        if name.startswith("j"):
            for line in self._jobs.stop(tenant, name):
                await self._stop_line(tenant, line)
            return
        if (tenant, name) in self._running:
            self._stopping.add((tenant, name))
            await self._farm.stop(board_name(tenant, name))
        elif self._queue.remove(tenant, name):
            self._start(Waiting(tenant, name, "interactive"))  # sees the wish, and ends it

    async def open_job(self, tenant: str, name: str) -> None:
        self._opening.pop((tenant, name), None)
        self._jobs.start(tenant, name)

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        now = time.monotonic()
        self._looks.note(looked_at, now)
        if now - self._snapshot[0] > _SNAPSHOT_SECONDS:
            shown = [board_name(*key) for key in self._looks.at(now) if key in self._running]
            messages = await self._farm.progress(shown) if self._running else {}
            self._snapshot = now, self._look(messages, now)
        return self._snapshot[1]

    async def ready(self) -> bool:
        return await self._farm.ready()

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        for name in names:
            self._queue.remove(tenant, name)
        self._admission.stored(tenant, -stored_bytes)

    def _look(self, messages: Mapping[str, Mapping[str, Any]], now: float) -> Snapshot:
        steps = {
            key: self._pace.step(board_name(*key), messages.get(board_name(*key)), now)
            for key in self._running
        }
        self._pace.keep({board_name(*key) for key in steps})
        return Snapshot(len(self._queue), steps)

    def line_accepted(self, record: EditRecord) -> None:
        """Count what a job's edit keeps; its record is in the store."""
        self._admission.stored(record.tenant, record.bytes_in)

    async def run_line(self, record: EditRecord) -> EditRecord | None:
        """Queue a job's edit and wait for its end; the record afterwards."""
        key = record.tenant, record.id
        end = asyncio.get_running_loop().create_future()
        self._ends.setdefault(key, []).append(end)
        self._admission.release(*key)
        self._enqueue(Waiting(record.tenant, record.id, record.priority))
        await end
        return await self._io(self._ledger.read, *key)

    async def _stop_line(self, tenant: str, name: str) -> None:
        await self._io(self._ledger.change, tenant, name, cancelled_soon)
        await self.cancel(tenant, name)

    def _num_running(self, tenant: str) -> int:
        return sum(owner == tenant for owner, _ in self._running)

    def _enqueue(self, waiting: Waiting) -> None:
        if (waiting.tenant, waiting.id) not in self._running:
            self._queue.push(waiting)
            self._fill()

    def _fill(self) -> None:
        while not self._closing and len(self._running) < self._options.max_in_flight:
            waiting = self._queue.pop(self._may_start)
            if waiting is None:
                return
            self._start(waiting)

    def _may_start(self, tenant: str) -> bool:
        most = self._limits_of(tenant).max_running
        return most is None or self._num_running(tenant) < most

    def _start(self, waiting: Waiting) -> None:
        key = waiting.tenant, waiting.id
        task = asyncio.create_task(self._work(waiting))
        self._running[key] = task
        task.add_done_callback(lambda ended: self._ended(key, ended))

    def _ended(self, key: tuple[str, str], task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the next look around tries again, but not for ever
            _log.error("edit %s: unforeseen", key[1], exc_info=error)
        self._running.pop(key, None)
        self._stopping.discard(key)
        for end in self._ends.pop(key, ()):
            if not end.done():
                end.set_result(None)
        self._fill()

    async def _work(self, waiting: Waiting) -> None:
        """One edit from queued to settled; whatever fails here is tried again, ever more slowly."""
        pause = self._options.first_pause
        while True:
            try:
                record = await self._attempts.run(waiting.tenant, waiting.id)
            except UnavailableError as error:
                _log.warning("edit %s waits: %s", waiting.id, type(error).__name__)
            except FarmError:
                _log.exception("edit %s: its record cannot be handled", waiting.id)
                return  # its marker stays; a person must look
            else:
                if record is not None and is_to_be_told(record):
                    self._tell_soon(record)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _tell_soon(self, record: EditRecord) -> None:
        """Tell of each end once; after a retry two ends of one edit may be told at a time."""
        key = record.tenant, record.id
        if key not in self._telling or self._telling[key] != record.finished:
            self._telling[key] = record.finished
            self._spawn(self._tell(record))

    async def _tell(self, record: EditRecord) -> None:
        """Deliver the webhook; the marker stays until that is over, so a successor goes on."""
        key = record.tenant, record.id
        try:
            told = await self._courier.deliver(record)
            if not is_to_be_told(told):  # else it was tried again, and its new end is to be told
                await self._io(self._attempts.settle, told)
        except UnavailableError as error:  # the next look around tries again
            _log.warning("webhook of %s waits: %s", record.id, type(error).__name__)
        finally:
            if key in self._telling and self._telling[key] == record.finished:
                del self._telling[key]

    async def _rescan_for_ever(self) -> None:
        while True:
            try:
                await self._rescan()
            except FarmError as error:
                _log.warning("cannot look for accepted edits: %s", type(error).__name__)
            await asyncio.sleep(_RESCAN_SECONDS)

    async def _sweep_uploads_for_ever(self) -> None:
        while True:
            try:
                swept = await self._io(self._ledger.sweep_uploads, time.time() - _UPLOAD_AGE)
                _log.info("%d uploads were deleted that are older than a day", swept)
            except FarmError as error:
                _log.warning("cannot look for old uploads: %s", type(error).__name__)
            await asyncio.sleep(_UPLOADS_SECONDS)

    async def _rescan(self) -> None:
        """Everything that has a marker is queued, running, or becomes so."""
        for key in list(self._running):
            record = await self._io(self._ledger.read, *key)
            if record is not None and record.cancel_requested:  # whoever wished it could not say so
                self._stopping.add(key)
        waiting = self._queue.ids()
        for pending in await self._io(lambda: list(self._ledger.pending())):
            if not is_id(pending.id):
                continue  # nobody's of ours
            if pending.id.startswith("j"):
                self._jobs.start(pending.tenant, pending.id)
                continue
            known = (pending.tenant, pending.id)
            if known in self._running or known in self._telling or known in waiting:
                continue
            try:
                await self._take_up(pending)
            except CorruptArtifactError:  # its tenant is told when asking for it; others go on
                _log.error("the record of edit %s is damaged, and is left alone", pending.id)

    async def _take_up(self, pending: Pending) -> None:
        record = await self._io(self._ledger.read, pending.tenant, pending.id)
        if record is not None:
            self._enqueue(Waiting(pending.tenant, pending.id, record.priority))
        elif time.time() - pending.written > _ORPHAN_SECONDS:
            await self._io(self._ledger.sweep, pending)

    def _count_outputs(self, record: EditRecord) -> None:
        self._admission.stored(record.tenant, sum(record.outputs.values()))

    async def _counted_limits(self, tenant: str) -> TenantLimits:
        """A tenant's limits, when it is known what it stores already."""
        limits = self._limits_of(tenant)
        if limits.max_stored_bytes is not None and tenant not in self._counted:
            await self._count_stored(tenant)
        return limits

    async def _count_stored(self, tenant: str) -> None:
        self._counted.add(tenant)  # before: one reading of all its records is enough
        try:
            total = await self._io(self._stored_bytes, tenant)
        except BaseException:
            self._counted.discard(tenant)  # else it would have no limit until a restart
            raise
        self._admission.count_stored(tenant, total)

    def _stored_bytes(self, tenant: str) -> int:
        total = 0
        for name in self._ledger.ids(tenant):
            with suppress(CorruptArtifactError):  # a damaged record must not keep its tenant out
                record = self._ledger.read(tenant, name)
                total += 0 if record is None else record.stored_bytes
        return total

    async def _io(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
