"""Records in the store: written once, changed only on condition, so that any replica may do it.

| kind | name | holds |
|---|---|---|
| records | id of an edit | `EditRecord` |
| images | id of an edit | the image's bytes, until the edit is done |
| masks | id of an edit | the mask's, where there is one |
| jobs | id of a job | `JobRecord` |
| claims | digest of an `Idempotency-Key` | which edit it stands for |
| uploads | what `POST /v1/uploads` called it | a picture to be named, for a day |

An edit is accepted when its record is written. Its pending marker is written before, so no accepted
edit lacks one; a marker without a record is left by a replica that died, and is swept.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from farm.errors import CorruptArtifactError, StoreError
from farm.storage.layout import (
    input_key,
    online_key,
    online_prefix,
    pending_key,
    pending_prefix,
    tenants_prefix,
)
from farm.storage.store import MissingKeyError, Store
from serve.records import EditRecord, JobRecord

_TRIES = 20
_LONGEST_PAUSE = 0.1  # in seconds, before a change that another was quicker than is tried again
_Model = TypeVar("_Model", bound=BaseModel)


class Claim(BaseModel):
    """What an `Idempotency-Key` stands for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    body: str
    """Digest of the request's content."""


@dataclass(frozen=True)
class Pending:
    """A marker: somebody's edit or job that is not finished."""

    tenant: str
    id: str
    written: float
    """Unix time of its latest writing; an id tells less, as a line's has the time of its job."""


@dataclass(frozen=True)
class Ledger:
    """The records of one store."""

    store: Store

    def accept(self, record: EditRecord, image: bytes, mask: bytes | None) -> EditRecord:
        """Make an edit durable, or find it so already; all that was written outlives a crash.

        A marker that is there is written anew: what a dead replica began is young again.
        """
        if mask is not None:
            self.store.put_if_absent(online_key(record.tenant, "masks", record.id), mask)
        self.store.put_if_absent(online_key(record.tenant, "images", record.id), image)
        self._mark(record.tenant, record.id)
        written = self.store.put_if_absent(_record_key(record.tenant, record.id), _dump(record))
        found = None if written is not None else self.read(record.tenant, record.id)
        return found or record

    def read(self, tenant: str, name: str) -> EditRecord | None:
        """A tenant's edit, or None where it has none of that id."""
        data = self._get(_record_key(tenant, name))
        return None if data is None else _parse(EditRecord, data)

    def image(self, record: EditRecord) -> bytes:
        """The bytes that were handed in.

        Raises:
            MissingKeyError: the edit is done, or was deleted.
        """
        return self.store.get(online_key(record.tenant, "images", record.id))

    def kept_image(self, record: EditRecord) -> bytes:
        """The same where an edit that ran has left it.

        Raises:
            MissingKeyError: none has, or it was deleted.
        """
        return self.store.get(input_key(record.tenant, record.image_digest))

    def mask(self, record: EditRecord) -> bytes | None:
        """The mask's bytes, if one was handed in.

        Raises:
            MissingKeyError: as `image`.
        """
        if record.request.get("mask") is None:
            return None
        return self.store.get(online_key(record.tenant, "masks", record.id))

    def change(
        self, tenant: str, name: str, step: Callable[[EditRecord], EditRecord]
    ) -> EditRecord | None:
        """Replace a record by what `step` makes of it, whoever else changes it meanwhile.

        Args:
            tenant: whose.
            name: its id.
            step: from the record as it is to as it shall be; may be called several times.

        Returns:
            The record afterwards; None where there is none.
        """
        return self._swap(EditRecord, _record_key(tenant, name), step)

    def settle(self, record: EditRecord, *, keep_image: bool) -> bool:
        """Note that nothing is left to do for a record; a failed edit keeps its image for a retry.

        The marker goes last: until then a restarted farm looks again.

        Returns:
            False where the edit has not ended, or the record is no longer this one: somebody wants
            the edit tried again, and its marker is there.
        """
        if not record.is_final:
            return False
        if not keep_image:
            self._drop_pictures(record.tenant, record.id)
        self.store.delete(pending_key(record.tenant, record.id))
        if self.read(record.tenant, record.id) in (None, record):
            return True
        self._mark(record.tenant, record.id)
        return False

    def reopen(
        self, tenant: str, name: str, step: Callable[[EditRecord], EditRecord]
    ) -> EditRecord | None:
        """As `change`, for a step that makes an edit wait again.

        Marked as pending before, as what is accepted, and afterwards: whoever settles the edit
        as it was may take the first marker away, and after the second finds the change.
        """
        self._mark(tenant, name)
        changed = self.change(tenant, name, step)
        self._mark(tenant, name)
        return changed

    def remove(self, record: EditRecord) -> None:
        """Forget a record; what it led to is another matter."""
        self.store.delete(_record_key(record.tenant, record.id))
        self._drop_pictures(record.tenant, record.id)
        self.store.delete(pending_key(record.tenant, record.id))

    def sweep(self, pending: Pending) -> None:
        """Remove a marker whose record was never written, and its image."""
        self._drop_pictures(pending.tenant, pending.id)
        self.store.delete(pending_key(pending.tenant, pending.id))

    def sweep_uploads(self, before: float) -> int:
        """Delete pictures uploaded before that time; how many.

        Args:
            before: seconds since 1970, by the store's clock.
        """
        count = 0
        for tenant in self.store.names(tenants_prefix()):
            for entry in self.store.entries(online_prefix(tenant, "uploads")):
                if entry.modified < before:
                    self.store.delete(entry.key)
                    count += 1
        return count

    def pending(self) -> Iterator[Pending]:
        """All markers, of all tenants."""
        prefix = pending_prefix()
        for entry in self.store.entries(prefix):
            tenant, _, name = entry.key.removeprefix(prefix).partition("/")
            yield Pending(tenant, name, entry.modified)

    def ids(self, tenant: str, *, after: str = "") -> Iterator[str]:
        """Ids of a tenant's edits, the newest first, from behind `after`."""
        prefix = online_prefix(tenant, "records")
        for key in self.store.list(prefix):
            name = key.removeprefix(prefix)
            if name > after:
                yield name

    def records(self, tenant: str, *, after: str = "") -> Iterator[EditRecord]:
        """The same as records, read one by one."""
        for name in self.ids(tenant, after=after):
            record = self.read(tenant, name)
            if record is not None:
                yield record

    def claim(self, tenant: str, key: str, claim: Claim) -> Claim:
        """What a client's key stands for from now on: this, or what it stood for before."""
        place = _claim_key(tenant, key)
        self.store.put_if_absent(place, _dump(claim))
        return _parse(Claim, self.store.get(place))

    def claimed(self, tenant: str, key: str) -> Claim | None:
        """What a client's key stands for, if anything."""
        data = self._get(_claim_key(tenant, key))
        return None if data is None else _parse(Claim, data)

    def open_job(self, job: JobRecord) -> None:
        """Make a job durable."""
        self.store.put_if_absent(pending_key(job.tenant, job.id), b"")
        self.store.put_if_absent(online_key(job.tenant, "jobs", job.id), _dump(job))

    def job(self, tenant: str, name: str) -> JobRecord | None:
        """A tenant's job, or None where it has none of that id."""
        data = self._get(online_key(tenant, "jobs", name))
        return None if data is None else _parse(JobRecord, data)

    def change_job(
        self, tenant: str, name: str, step: Callable[[JobRecord], JobRecord]
    ) -> JobRecord | None:
        """Like `change`, for jobs."""
        return self._swap(JobRecord, online_key(tenant, "jobs", name), step)

    def settle_job(self, job: JobRecord) -> None:
        """Note that nothing is left to do for a job."""
        self.store.delete(pending_key(job.tenant, job.id))

    def jobs(self, tenant: str, *, after: str = "") -> Iterator[JobRecord]:
        """A tenant's jobs, the newest first."""
        prefix = online_prefix(tenant, "jobs")
        for key in self.store.list(prefix):
            name = key.removeprefix(prefix)
            job = self.job(tenant, name) if name > after else None
            if job is not None:
                yield job

    def _mark(self, tenant: str, name: str) -> None:
        self.store.put(pending_key(tenant, name), b"")

    def _drop_pictures(self, tenant: str, name: str) -> None:
        for kind in ("images", "masks"):
            self.store.delete(online_key(tenant, kind, name))

    def _swap(
        self, kind: type[_Model], key: str, step: Callable[[_Model], _Model]
    ) -> _Model | None:
        for tried in range(_TRIES):
            if tried:  # of several that change one record, none is to be the last every time
                pause = min(0.001 * 2**tried, _LONGEST_PAUSE)
                time.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
            try:
                data, version = self.store.get_with_version(key)
            except MissingKeyError:
                return None
            found = _parse(kind, data)
            changed = step(found)
            if changed == found:
                return found
            if self.store.put_if_match(key, _dump(changed), version) is not None:
                return changed
        raise StoreError(f"{key!r} is changed by others all the time; try again")

    def _get(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except MissingKeyError:
            return None


def _record_key(tenant: str, name: str) -> str:
    return online_key(tenant, "records", name)


def _claim_key(tenant: str, key: str) -> str:
    return online_key(tenant, "claims", hashlib.sha256(key.encode()).hexdigest())


def _dump(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()


def _parse(kind: type[_Model], data: bytes) -> _Model:
    try:
        return kind.model_validate(json.loads(data))
    except ValueError as error:
        raise CorruptArtifactError(
            f"a stored {kind.__name__} cannot be read: {error}; it was damaged, or written by "
            "another version of the farm"
        ) from error
