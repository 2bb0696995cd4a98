"""One edit from queued to its end, as often as it takes: every step of it is in its record."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from actors.tracing import mark, span
from farm.errors import (
    EditCancelledError,
    EditFailedError,
    FarmError,
    InvalidRequestError,
    UnavailableError,
)
from farm.results import EditResult
from farm.storage.commits import read_commit
from farm.storage.layout import edit_prefix
from farm.storage.store import MissingKeyError
from serve.doors import EditFarm
from serve.intake import Intake
from serve.ledger import Ledger
from serve.problems import TooLongError, code_of, safe_detail
from serve.records import EditRecord, Failure

_log = logging.getLogger("editfarm.serve")
_T = TypeVar("_T")

_MAX_ATTEMPTS = 20
"""Starts of one edit, by any dispatcher, after which it is what kills its surroundings."""
_STOP_GRACE = 60.0
_NAG_SECONDS = 0.5


class Attempts:
    """Runs edits.

    Args:
        ledger: of records.
        farm: that runs them.
        intake: from a record and its image to what the farm runs.
        threads: for whatever blocks.
        stopping: tenants and ids of edits that somebody wants to end; looked at all the time.
        ended: told of each record that was brought to its end here, once.
        max_seconds: after which an edit is ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        farm: EditFarm,
        intake: Intake,
        threads: ThreadPoolExecutor,
        stopping: AbstractSet[tuple[str, str]],
        ended: Callable[[EditRecord], None],
        max_seconds: float,
    ) -> None:
        self._ledger, self._farm, self._intake = ledger, farm, intake
        self._threads, self._stopping, self._max_seconds = threads, stopping, max_seconds
        self._note_end = ended

    async def run(self, tenant: str, name: str) -> EditRecord | None:
        """Run an edit and write down its end; None where there is nothing to tell anybody.

        Raises:
            UnavailableError: the store or the farm is not there; nothing is lost.
        """
        while True:
            record = await self._io(self._begin, tenant, name)
            if record is not None and not record.is_final:
                with span("edit", record.trace, edit=record.edit_id, attempt=record.attempts):
                    record = await self._run(record)
                    mark(state="lost" if record is None else record.state)
                if record is not None:  # before it is settled, which may fail and come again
                    self._note_end(record)
            if record is None or is_to_be_told(record) or await self._io(self.settle, record):
                return record

    async def _run(self, record: EditRecord) -> EditRecord | None:
        name = board_name(record.tenant, record.id)
        try:
            image = await self._io(self._ledger.image, record)
            mask = await self._io(self._ledger.mask, record)
            prepared = await self._io(self._intake.prepare, record, image, mask)
            running = self._farm.run(name, prepared, tenant=record.tenant, priority=record.priority)
            result = await self._watched((record.tenant, record.id), running)
        except MissingKeyError:
            return await self._io(self._finish_lost, record)
        except FarmError as error:
            if isinstance(error, UnavailableError):
                raise
            return await self._io(self._finish, record, error)
        return await self._io(self._finish, record, result)

    async def _watched(
        self, key: tuple[str, str], running: Coroutine[Any, Any, EditResult]
    ) -> EditResult:
        """The result, or an end to what runs too long: asked first, then no longer awaited.

        A wish to stop is repeated, as the farm forgets one that comes before the edit does.
        """
        task = asyncio.create_task(running)
        deadline = time.monotonic() + self._max_seconds
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=_NAG_SECONDS)
                late = time.monotonic() - deadline
                wanted = key in self._stopping
                ended_late = late > 0 and not wanted
                if done and not (ended_late and isinstance(task.exception(), EditCancelledError)):
                    return _foreseen(task)
                if done or late > _STOP_GRACE:
                    raise TooLongError(f"it ran longer than {self._max_seconds:g} s")
                if late > 0 or wanted:
                    await self._farm.stop(board_name(*key))
        finally:
            task.cancel()

    def _begin(self, tenant: str, name: str) -> EditRecord | None:
        """Mark as running; what was cancelled or has ended comes back as final."""

        def step(record: EditRecord) -> EditRecord:
            if record.is_final:
                return record
            if record.cancel_requested:
                failure = Failure(code="edit_cancelled", detail="cancelled before it was started")
                return _ended_as(record, "cancelled", failure)
            if record.attempts >= _MAX_ATTEMPTS:
                detail = f"it was started {record.attempts} times and never came to an end"
                return _ended_as(record, "failed", Failure(code="given_up", detail=detail))
            return record.model_copy(
                update={
                    "state": "running",
                    "started": record.started or time.time(),
                    "attempts": record.attempts + 1,
                }
            )

        return self._ledger.change(tenant, name, step)

    def _finish(self, record: EditRecord, outcome: EditResult | FarmError) -> EditRecord | None:
        if isinstance(outcome, EditResult):
            commit = read_commit(self._ledger.store, edit_prefix(record.tenant, outcome.edit_id))
            sizes = {name: file.size for name, file in commit.files.items()} if commit else {}

            def step(found: EditRecord) -> EditRecord:
                done = {"outputs": sizes, "reused": outcome.reused, "edit_id": outcome.edit_id}
                return _ended_as(found, "done", None).model_copy(update=done)
        else:
            failure = Failure(code=code_of(outcome), detail=safe_detail(outcome))
            state = "cancelled" if isinstance(outcome, EditCancelledError) else "failed"
            if state == "failed" and not isinstance(outcome, InvalidRequestError):
                _log.error("edit %s failed: %s", record.id, outcome.message)

            def step(found: EditRecord) -> EditRecord:
                return _ended_as(found, state, failure)

        return self._ledger.change(
            record.tenant, record.id, lambda found: found if found.is_final else step(found)
        )

    def _finish_lost(self, record: EditRecord) -> EditRecord | None:
        """The image is gone: the record was deleted meanwhile, or somebody emptied the store."""
        error = EditFailedError(f"edit {record.id}: its image is gone from the store")
        return self._finish(record, error)

    def settle(self, record: EditRecord) -> bool:
        """As `Ledger.settle`."""
        return self._ledger.settle(record, keep_image=record.state != "done")

    async def _io(self, call: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)


def _foreseen(task: "asyncio.Task[EditResult]") -> EditResult:
    """What a farm gives; what is no `FarmError` is a fault, and trying again is no cure."""
    error = task.exception()
    if error is None or isinstance(error, FarmError):
        return task.result()
    _log.error("an edit met an unforeseen error", exc_info=error)
    raise EditFailedError(f"unforeseen {type(error).__name__}: a fault of the farm") from error


def board_name(tenant: str, name: str) -> str:
    """An edit's name on the farm's progress board, where all tenants meet."""
    return f"{tenant}/{name}"


def is_to_be_told(record: EditRecord) -> bool:
    """Whether a webhook is still to be delivered."""
    return record.webhook is not None and record.webhook.state == "waiting"


def _ended_as(record: EditRecord, state: str, failure: Failure | None) -> EditRecord:
    return record.model_copy(update={"state": state, "failure": failure, "finished": time.time()})
