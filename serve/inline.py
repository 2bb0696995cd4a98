"""A farm in this process, edit by edit, without Ray: for tests and for trying the API out."""

import asyncio
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from actors.previews import Previews
from farm.calls import Executor
from farm.progress import Progress
from farm.results import EditResult
from farm.runner import PreparedEdit, run_edit
from farm.storage.store import Store
from serve.records import Priority


class InlineFarm:
    """Implements `serve.doors.EditFarm`.

    Args:
        host: the networks.
        store: where edits lie.
    """

    def __init__(self, host: Executor, store: Store) -> None:
        self._host, self._store = host, store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inline-farm")
        self._messages: dict[str, Mapping[str, Any]] = {}
        self._looked_at: frozenset[str] = frozenset()
        self._stopping: set[str] = set()
        self._lock = threading.Lock()
        self._closing = False

    def start(self) -> None:
        """It is ready."""

    async def close(self) -> None:
        """Stop what runs; its records stay as they are, for whoever comes next."""
        self._closing = True

    async def run(
        self, name: str, prepared: PreparedEdit, *, tenant: str, priority: Priority
    ) -> EditResult:
        """See `EditFarm`; one at a time, in the order of the calls."""
        del priority
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, name, prepared, tenant)

    async def stop(self, name: str) -> None:
        with self._lock:
            self._stopping.add(name)

    async def progress(self, looked_at: Collection[str] = ()) -> Mapping[str, Mapping[str, Any]]:
        with self._lock:
            self._looked_at = frozenset(looked_at)
            return dict(self._messages)

    async def ready(self) -> bool:
        return True

    def _run(self, name: str, prepared: PreparedEdit, tenant: str) -> EditResult:
        previews = Previews()
        shown: bytes | None = None

        def report(progress: Progress) -> None:
            nonlocal shown
            if name in self._looked_at:
                shown = previews.take(progress) or shown
            with self._lock:
                self._messages[name] = {
                    "stage": progress.stage,
                    "step": progress.step,
                    "total": progress.total,
                    "loss": progress.loss,
                    "preview": shown,
                }

        try:
            return run_edit(
                prepared,
                self._store,
                self._host,
                tenant=tenant,
                report=report,
                should_stop=lambda: self._closing or name in self._stopping,
            )
        finally:
            with self._lock:
                self._messages.pop(name, None)
                self._stopping.discard(name)
