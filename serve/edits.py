"""What tenants can do with edits, with no HTTP in it."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from actors.tracing import here
from farm.storage.commits import CommitRecord, read_commit, read_file
from farm.storage.layout import attempt_file_key, edit_prefix
from farm.storage.store import MissingKeyError
from serve.doors import DispatcherDoor
from serve.intake import CheckedEdit, Intake, Submission
from serve.ledger import Claim, Ledger
from serve.problems import BusyError, ConflictError, NotFoundError, TooManyError
from serve.records import EditRecord, Failure, State, Webhook, is_id, new_id
from serve.removal import delete_results
from serve.transfers import presign_download

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = logging.getLogger("editfarm.serve")

_CHECKS_AT_ONCE = 4  # each may hold a decoded picture in memory
_LOOKED_AT = 1000
"""Records read for one page, however few of them are asked for."""


@dataclass(frozen=True)
class Filter:
    """Which edits to list."""

    state: State | None = None
    method: str | None = None
    job: str | None = None
    user: str | None = None

    def takes(self, record: EditRecord) -> bool:
        return (
            (self.state is None or record.state == self.state)
            and (self.method is None or method_of(record) == self.method)
            and (self.job is None or record.job == self.job)
            and (self.user is None or record.user == self.user)
        )


class Edits:
    """Edits of all tenants; every method is given whose they are, and sees no others.

    Args:
        ledger: of records.
        intake: checks what is submitted.
        door: to the dispatcher.
        log_prompts: whether they may appear in logs.
    """

    def __init__(
        self, ledger: Ledger, intake: Intake, door: DispatcherDoor, *, log_prompts: bool = False
    ) -> None:
        self._ledger, self._intake, self._door = ledger, intake, door
        self._log_prompts = log_prompts
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._announcing: set[asyncio.Task[None]] = set()

    async def submit(
        self, tenant: str, submission: Submission, *, idempotency_key: str | None = None
    ) -> tuple[EditRecord, bool]:
        """Accept an edit; when this returns, it is durable.

        Returns:
            The record, and whether it is new: the same key and content give the same edit.

        Raises:
            FarmError: it cannot be run as it is.
            ProblemError: a limit is reached, or the key stands for another edit.
        """
        body = "" if idempotency_key is None else submission.digest()
        name = new_id("e")
        if idempotency_key is not None:
            claim = await asyncio.to_thread(self._ledger.claimed, tenant, idempotency_key)
            if claim is not None:
                name = _same(claim, body).id
                record = await asyncio.to_thread(self._ledger.read, tenant, name)
                if record is not None:
                    return record, False
        checked = await self.on_pictures(self._intake.check, tenant, submission)
        await self._admit(tenant, name, checked.pixels)
        return await self._accept(tenant, name, submission, checked, idempotency_key, body)

    async def on_pictures(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What decodes pictures, beside the event loop and few at a time: each may hold a GB."""
        async with self._checks:
            return await asyncio.to_thread(work, *args, **kwargs)

    async def _accept(
        self,
        tenant: str,
        name: str,
        submission: Submission,
        checked: CheckedEdit,
        key: str | None,
        body: str,
    ) -> tuple[EditRecord, bool]:
        reserved = name
        accepted = False
        try:
            if key is not None:
                claim = Claim(id=name, body=body)
                claim = await asyncio.to_thread(self._ledger.claim, tenant, key, claim)
                name = _same(claim, body).id
            record = new_record(tenant, name, submission, checked)
            stored = await asyncio.to_thread(
                self._ledger.accept, record, checked.image, checked.mask
            )
            accepted = True
        finally:
            if not accepted or name != reserved:
                with suppress(BusyError):
                    await self._door.release(tenant, reserved)
        is_new = stored.created == record.created
        self._announce(record, new_bytes=record.bytes_in if is_new else 0)
        if self._log_prompts:
            _log.info("edit %s: %r", name, checked.request["target_prompt"])
        return stored, is_new

    def _announce(self, record: EditRecord, *, new_bytes: int) -> None:
        """Tell the dispatcher, while the answer is on its way.

        Nobody need wait: the edit is durable, and whoever dispatches next finds it too.
        """

        async def announce() -> None:
            with suppress(BusyError):
                await self._door.accept(record.tenant, record.id, record.priority, new_bytes)

        telling = asyncio.create_task(announce())
        self._announcing.add(telling)
        telling.add_done_callback(self._announcing.discard)

    async def page(
        self, tenant: str, wanted: Filter, *, after: str, limit: int
    ) -> tuple[list[EditRecord], str | None]:
        """Some edits, the newest first, and where to go on."""
        return await asyncio.to_thread(self._page, tenant, wanted, after, limit)

    def _page(
        self, tenant: str, wanted: Filter, after: str, limit: int
    ) -> tuple[list[EditRecord], str | None]:
        found: list[EditRecord] = []
        for looked, record in enumerate(self._ledger.records(tenant, after=after), start=1):
            if wanted.takes(record):
                found.append(record)
            if len(found) == limit or looked == _LOOKED_AT:
                return found, record.id
        return found, None

    async def cancel(self, tenant: str, name: str) -> EditRecord:
        """Ask an edit to end; one that has ended stays as it is."""

        def step(record: EditRecord) -> EditRecord:
            if record.is_final:
                return record
            changed = record.model_copy(update={"cancel_requested": True})
            if record.state != "queued":
                return changed
            failure = Failure(code="edit_cancelled", detail="cancelled before it was started")
            end = {"state": "cancelled", "failure": failure, "finished": time.time()}
            return changed.model_copy(update=end)

        record = await self._change(tenant, name, step)
        with suppress(BusyError):  # the record says so, and the next dispatcher reads it
            await self._door.cancel(tenant, name)
        return record

    async def retry(self, tenant: str, name: str) -> EditRecord:
        """Queue an edit again that failed or was cancelled; what it had trained is used.

        Raises:
            ConflictError: it is done, or not at its end.
        """
        record = await self._read(tenant, name)
        if record.state not in {"failed", "cancelled"}:
            raise ConflictError("not_failed", f"the edit is {record.state}: nothing to try again")
        await self._admit(tenant, name, 0)

        def step(found: EditRecord) -> EditRecord:
            if found.state not in {"failed", "cancelled"}:
                return found
            hook = found.webhook and Webhook(url=found.webhook.url)
            again = {"state": "queued", "failure": None, "finished": None, "attempts": 0}
            return found.model_copy(update={**again, "cancel_requested": False, "webhook": hook})

        changed = await asyncio.to_thread(self._ledger.reopen, tenant, name, step)
        if changed is None:
            raise NotFoundError("edit")
        with suppress(BusyError):
            await self._door.accept(tenant, name, changed.priority, 0)
        return changed

    async def delete(self, tenant: str, name: str) -> None:
        """Forget an edit, with its picture, outputs and inversions that no other edit needs.

        Raises:
            ConflictError: it has not ended.
        """
        record = await self._read(tenant, name)
        if not record.is_final:
            raise ConflictError("not_final", f"the edit is {record.state}: cancel it first")
        await asyncio.to_thread(self._delete, record)
        with suppress(BusyError):
            await self._door.forget(tenant, [name], record.stored_bytes)

    def _delete(self, record: EditRecord) -> None:
        """The record goes last: a deletion that fails can be asked for again."""
        delete_results(self._ledger, self._intake, record)
        self._ledger.remove(record)

    async def output(self, tenant: str, name: str, file: str) -> bytes:
        """One of an edit's files, checked against its digest.

        Raises:
            NotFoundError: the edit has no such output.
            ConflictError: the edit is not done.
        """
        target, commit = await self._committed(tenant, name, file)
        return await asyncio.to_thread(read_file, self._ledger.store, target, commit, file)

    async def picture(self, tenant: str, name: str) -> bytes:
        """The picture that was handed in.

        Raises:
            NotFoundError: there is no such edit, or it is gone with the edit's files.
        """
        record = await self._read(tenant, name)
        for read in (self._ledger.image, self._ledger.kept_image):
            with suppress(MissingKeyError):
                data = await asyncio.to_thread(read, record)
                if data:  # what is generated has none
                    return data
        raise NotFoundError("picture, or no longer")

    async def presigned(self, tenant: str, name: str, file: str) -> str | None:
        """The store's own address of an output; None where the store has none. Raises likewise."""
        target, commit = await self._committed(tenant, name, file)
        key = attempt_file_key(target, commit.attempt, file)
        return await asyncio.to_thread(presign_download, self._ledger.store, key, file)

    async def _committed(self, tenant: str, name: str, file: str) -> tuple[str, CommitRecord]:
        record = await self._read(tenant, name)
        if record.state != "done":
            raise ConflictError("not_done", f"the edit is {record.state}: it has no outputs")
        target = edit_prefix(tenant, record.edit_id)
        commit = await asyncio.to_thread(read_commit, self._ledger.store, target)
        if commit is None or file not in record.outputs or file not in commit.files:
            raise NotFoundError("output")
        return target, commit

    async def _admit(self, tenant: str, name: str, pixels: int) -> None:
        refusal = await self._door.admit(tenant, name, pixels)
        if refusal is not None:
            raise TooManyError(refusal.code, refusal.detail, refusal.retry_after)

    async def _read(self, tenant: str, name: str) -> EditRecord:
        record = await asyncio.to_thread(self._ledger.read, tenant, name) if is_id(name) else None
        if record is None:
            raise NotFoundError("edit")
        return record

    async def _change(
        self, tenant: str, name: str, step: Callable[[EditRecord], EditRecord]
    ) -> EditRecord:
        await self._read(tenant, name)
        record = await asyncio.to_thread(self._ledger.change, tenant, name, step)
        if record is None:
            raise NotFoundError("edit")
        return record


def cancelled_soon(record: EditRecord) -> EditRecord:
    """A record with the wish to end."""
    return record if record.is_final else record.model_copy(update={"cancel_requested": True})


def method_of(record: EditRecord) -> str:
    """The method's name, also where the request leaves it to the default."""
    return str(record.request.get("method", "style_diffusion"))


def new_record(tenant: str, name: str, submission: Submission, checked: CheckedEdit) -> EditRecord:
    """The record of an edit that is accepted now."""
    return EditRecord(
        id=name,
        tenant=tenant,
        request=checked.request,
        priority=submission.priority,
        edit_id=checked.edit_id,
        image_digest=checked.image_digest,
        created=time.time(),
        bytes_in=len(checked.image) + len(checked.mask or b""),
        user=submission.user,
        job=submission.job,
        webhook=None if submission.webhook is None else Webhook(url=submission.webhook),
        trace=here(),
    )


def _same(claim: Claim, body: str) -> Claim:
    if claim.body != body:
        raise ConflictError(
            "idempotency_conflict",
            "this Idempotency-Key was used for another request: use a new one",
        )
    return claim
