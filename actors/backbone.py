"""The backbone: frozen networks that answer batched, stateless calls. `actors.shell` is its actor.

No Ray in it but for marks on methods: health, figures and cancellation have a concurrency group of
their own in the actor, so they answer while a long step runs.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import torch

from actors.batcher import Batcher, Outcome, Work
from actors.caps import CudaGauge
from actors.limits import Limits
from actors.metrics import watch_backbone
from actors.sender import ANYBODY, Sender
from actors.stats import BatcherStats
from actors.tracing import span
from farm.allocator import keep_freed_memory
from farm.calls import Call, Paused
from farm.errors import FarmError

_LAST_WORDS = 0.5
"""Seconds for answers to leave a process that ends because a step hangs or broke its device."""


class Host(Protocol):
    """What a backbone needs of whoever holds the networks; `OperationHost` is one."""

    def run_step(self, items: Sequence[Work]) -> Sequence[Outcome | Paused]:
        """Outcomes of items of one key, in their order, or where they are paused."""
        ...

    def run_batch(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes of calls of one key, in their order."""
        ...

    def make_room(self) -> bool:
        """Give back memory that is held for later, as it ran out; False if there is none."""
        ...

    def promised_bytes(self) -> int:
        """Memory of the device that will be held for later, and is no batch's."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Which networks are loaded, and what else is worth knowing."""
        ...


HostFactory: TypeAlias = Callable[[str], Host]
"""From a device ("cuda" or "cpu") to a host. It must pickle, for it runs in the actor: weights are
loaded there and never cross the wire."""


class Backbone:
    """A host with a batcher before it.

    Args:
        build_host: called once.
        device: what it is called with.
        warm_up: calls computed before the backbone is ready, as the first compile and allocate.
        threads: threads of one tensor operation.
        limits: of queue, batches and shares.
        memory_share: of the device's memory, where several backbones share one.
        on_hang: what to do once a step was given up, or broke the device; by default this process
            ends, as nothing can end a thread or mend a device's context, and Ray starts it anew.

    Raises:
        FarmError: the networks cannot be loaded, or cannot answer the warm-up.
    """

    def __init__(
        self,
        build_host: HostFactory,
        device: str,
        *,
        warm_up: Sequence[Call] = (),
        threads: int = 1,
        limits: Limits | None = None,
        memory_share: float = 1.0,
        on_hang: Callable[[], None] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        if device == "cpu":
            keep_freed_memory()  # the same shapes come again with every step
        self._device = device
        gauge = CudaGauge(device, memory_share) if device.startswith("cuda") else None
        self._host = build_host(device)
        if gauge is not None:
            gauge.leave(self._host.promised_bytes)
        for call in warm_up:
            for outcome in self._host.run_batch([call]):
                if isinstance(outcome, FarmError):
                    raise outcome
        self._batcher = Batcher(
            self._host.run_step,
            limits,
            gauge=gauge,
            make_room=self._host.make_room,
            on_hang=on_hang or _end_soon,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        watch_backbone(self._batcher.stats)

    async def answer(self, calls: Sequence[Call], sender: Sender = ANYBODY) -> list[Outcome]:
        """Outcomes in the order of the calls, which are awaited together."""
        self._loop = asyncio.get_running_loop()
        if not sender.trace:
            return await self._batcher.answer_all(calls, sender)
        operations = ",".join(sorted({call.op for call in calls}))
        with span(f"backbone {operations}", sender.trace, calls=len(calls)):
            return await self._batcher.answer_all(calls, sender)

    async def cancel(self, caller: str) -> int:
        """Drop all calls of a caller; how many they were. From any event loop."""
        if self._loop is None:
            return 0
        cancelled = asyncio.run_coroutine_threadsafe(self._cancel(caller), self._loop)
        return await asyncio.wrap_future(cancelled)

    def health(self) -> int:
        """The process id; whoever gets it knows that the networks are loaded and warm."""
        return os.getpid()

    def stats(self) -> BatcherStats:
        """Figures of the batcher since this process started."""
        return self._batcher.stats()

    def describe(self) -> dict[str, Any]:
        """Process, device, and what the host says of its networks."""
        return {"pid": os.getpid(), "device": self._device, **self._host.describe()}

    async def _cancel(self, caller: str) -> int:
        return self._batcher.cancel(caller)


def _end_soon() -> None:
    asyncio.get_running_loop().call_later(_LAST_WORDS, os._exit, 1)
