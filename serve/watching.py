"""How an edit looks right now, for many onlookers at the price of one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from serve.doors import DispatcherDoor, Snapshot, Step
from serve.ledger import Ledger
from serve.looks import Looks
from serve.problems import BusyError, NotFoundError
from serve.records import EditRecord

_FRESH_SECONDS = 0.2
_RUNNING_PAUSE = 0.25
_WAITING_PAUSE = 0.5
_LONGEST_PAUSE = 2.0


class Watcher:
    """Joins the records in the store with the dispatcher's snapshot.

    Args:
        ledger: of records.
        door: asked for one snapshot, however many look.
    """

    def __init__(self, ledger: Ledger, door: DispatcherDoor) -> None:
        self._ledger, self._door = ledger, door
        self._snapshot, self._looks = Snapshot(), Looks()
        self._taken = -1.0
        self._lock = asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """At most a moment old; empty while there is no dispatcher."""
        async with self._lock:
            if time.monotonic() - self._taken > _FRESH_SECONDS:
                looked_at = self._looks.at(time.monotonic())
                try:
                    self._snapshot = await self._door.snapshot(looked_at)
                except BusyError:
                    self._snapshot = Snapshot()
                self._taken = time.monotonic()
        return self._snapshot

    async def look(self, tenant: str, name: str) -> tuple[EditRecord, Step | None]:
        """An edit and its latest step.

        Raises:
            NotFoundError: the tenant has no such edit.
        """
        record = await asyncio.to_thread(self._ledger.read, tenant, name)
        if record is None:
            raise NotFoundError("edit")
        if record.is_final:
            return record, None
        return record, (await self.snapshot()).running.get((tenant, name))

    async def preview(self, tenant: str, name: str) -> bytes:
        """The picture as it stood a moment ago; asking for it has it made, for a while.

        Raises:
            NotFoundError: the tenant has no such edit, or there is none of it (yet).
        """
        self._looks.note([(tenant, name)], time.monotonic())
        _, step = await self.look(tenant, name)
        if step is None or step.preview is None:
            raise NotFoundError("preview now; while the edit runs, ask again")
        return step.preview

    async def follow(
        self, tenant: str, name: str, *, previews: bool = False
    ) -> AsyncIterator[tuple[EditRecord, Step | None]]:
        """The same whenever it changes; ends with the edit.

        Args:
            tenant: whose edit.
            name: of the edit.
            previews: whether pictures of it are wanted meanwhile.

        Raises:
            NotFoundError: the tenant has no such edit, or no longer.
        """
        seen: tuple[EditRecord, Step | None] | None = None
        pause = _WAITING_PAUSE
        record, step = await self.look(tenant, name)
        while True:
            if (record, step) != seen:
                seen = record, step
                pause = _WAITING_PAUSE
                yield seen
            if record.is_final:
                return
            await asyncio.sleep(_RUNNING_PAUSE if step is not None else pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)
            if previews:
                self._looks.note([(tenant, name)], time.monotonic())
            running = (await self.snapshot()).running
            if (tenant, name) in running and record.state == "running":
                step = running[tenant, name] or step
            else:
                record, step = await self.look(tenant, name)

    async def wait(self, tenant: str, name: str, seconds: float) -> tuple[EditRecord, Step | None]:
        """The edit when it has ended, or as it is when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                async for _ in self.follow(tenant, name):
                    pass
        return await self.look(tenant, name)
