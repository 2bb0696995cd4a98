"""What tenants can do with batches of edits, with no HTTP in it."""

import asyncio
import time
from contextlib import suppress

from serve.doors import Charged, DispatcherDoor
from serve.intake import Intake
from serve.ledger import Ledger
from serve.problems import BusyError, NotFoundError, TooManyError
from serve.records import JobRecord, is_id, new_id


class Batches:
    """Jobs of all tenants; every method is given whose they are, and sees no others.

    Args:
        ledger: of records.
        intake: reads manifests.
        door: to the dispatcher, which runs jobs.
    """

    def __init__(self, ledger: Ledger, intake: Intake, door: DispatcherDoor) -> None:
        self._ledger, self._intake, self._door = ledger, intake, door

    async def open(self, tenant: str, manifest: str, max_in_flight: int) -> JobRecord:
        """Accept a job; when this returns, it is durable.

        Raises:
            InvalidRequestError: there is no such manifest, or it is too large.
            ProblemError: a limit is reached.
        """
        name = new_id("j")
        await self.charge(tenant, "job", name)
        try:
            await asyncio.to_thread(self._intake.read_manifest, manifest)
            job = JobRecord(
                id=name,
                tenant=tenant,
                manifest=manifest,
                max_in_flight=max_in_flight,
                created=time.time(),
            )
            await asyncio.to_thread(self._ledger.open_job, job)
        except BaseException:
            with suppress(BusyError):
                await self._door.release(tenant, name)
            raise
        with suppress(BusyError):  # it is durable: whoever dispatches next will find it
            await self._door.open_job(tenant, job.id)
        return job

    async def charge(self, tenant: str, what: Charged, name: str = "") -> None:
        """Count something else than an edit on the tenant's limits; a job by its id.

        Raises:
            TooManyError: one is reached.
        """
        refusal = await self._door.charge(tenant, what, name)
        if refusal is not None:
            raise TooManyError(refusal.code, refusal.detail, refusal.retry_after)

    async def read(self, tenant: str, name: str) -> JobRecord:
        """Raises `NotFoundError` where the tenant has no such job."""
        job = await asyncio.to_thread(self._ledger.job, tenant, name) if is_id(name) else None
        if job is None:
            raise NotFoundError("job")
        return job

    async def page(
        self, tenant: str, *, after: str, limit: int
    ) -> tuple[list[JobRecord], str | None]:
        """Some jobs, the newest first, and where to go on."""

        def read() -> list[JobRecord]:
            found: list[JobRecord] = []
            for job in self._ledger.jobs(tenant, after=after):
                found.append(job)
                if len(found) == limit:
                    break
            return found

        jobs = await asyncio.to_thread(read)
        return jobs, jobs[-1].id if len(jobs) == limit else None

    async def cancel(self, tenant: str, name: str) -> JobRecord:
        """Start no further line, and cancel those that run."""
        await self.read(tenant, name)

        def step(job: JobRecord) -> JobRecord:
            if job.is_final:
                return job
            return job.model_copy(update={"state": "cancelled", "finished": time.time()})

        job = await asyncio.to_thread(self._ledger.change_job, tenant, name, step)
        if job is None:
            raise NotFoundError("job")
        with suppress(BusyError):
            await self._door.cancel(tenant, name)
        return job
