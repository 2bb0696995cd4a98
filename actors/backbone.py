"""The backbone actor: frozen networks that answer batched, stateless calls.

`Backbone` holds no Ray; `BackboneActor` is the same class as an actor. Health and figures have a
concurrency group of their own, so they answer while a long step runs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import ray
import torch

from actors.batcher import Batcher, BatcherStats, Outcome
from farm.calls import Call
from farm.errors import FarmError


class Host(Protocol):
    """What a backbone needs of whoever holds the networks; `OperationHost` is one."""

    def run_batch(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes of calls of one key, in their order."""
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
        max_batch: largest number of calls in a batch.
        max_queue: waiting calls beyond which further ones are refused.

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
        max_batch: int = 16,
        max_queue: int = 1024,
    ) -> None:
        torch.set_num_threads(threads)
        self._device = device
        self._host = build_host(device)
        for call in warm_up:
            for outcome in self._host.run_batch([call]):
                if isinstance(outcome, FarmError):
                    raise outcome
        self._batcher = Batcher(self._host.run_batch, max_batch=max_batch, max_queue=max_queue)

    async def answer(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes in the order of the calls, which are awaited together."""
        return await self._batcher.answer_all(calls)

    @ray.method(concurrency_group="ctl")
    async def health(self) -> int:
        """The process id; whoever gets it knows that the networks are loaded and warm."""
        return os.getpid()

    @ray.method(concurrency_group="ctl")
    async def stats(self) -> BatcherStats:
        """Figures of the batcher since this process started."""
        return self._batcher.stats()

    @ray.method(concurrency_group="ctl")
    async def describe(self) -> dict[str, Any]:
        """Process, device, and what the host says of its networks."""
        return {"pid": os.getpid(), "device": self._device, **self._host.describe()}


# no resources here: cluster/table.py sets them by .options()
BackboneActor: Any = ray.remote(  # pyright: ignore[reportCallIssue] - Ray types no groups
    concurrency_groups={"ctl": 4}
)(Backbone)
