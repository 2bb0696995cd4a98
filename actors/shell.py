"""The backbone as an actor. It imports no torch, so whoever starts backbones stays light."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle

from actors.limits import Limits
from actors.sender import ANYBODY, Sender
from actors.stats import BatcherStats

if TYPE_CHECKING:
    from actors.backbone import HostFactory
    from actors.batcher import Outcome
    from farm.calls import Call


@dataclass(frozen=True)
class Sealed:
    """What a backbone loads, pickled: whoever passes it on imports nothing of it."""

    data: bytes

    @classmethod
    def of(cls, build_host: "HostFactory", warm_up: Sequence["Call"] = ()) -> "Sealed":
        """Seal what `actors.backbone.Backbone` takes by these names."""
        return cls(cloudpickle.dumps((build_host, tuple(warm_up))))


class BackboneShell:
    """See `actors.backbone.Backbone`, whose methods these are.

    Args:
        sealed: what to load.
        device: where to.
        threads: of one tensor operation.
        limits: of queue, batches and shares.
        memory_share: of the device's memory.
    """

    def __init__(
        self, sealed: Sealed, device: str, *, threads: int, limits: Limits, memory_share: float
    ) -> None:
        build_host, warm_up = cloudpickle.loads(sealed.data)
        self._backbone = importlib.import_module("actors.backbone").Backbone(
            build_host,
            device,
            warm_up=warm_up,
            threads=threads,
            limits=limits,
            memory_share=memory_share,
        )

    async def answer(self, calls: Sequence["Call"], sender: Sender = ANYBODY) -> list["Outcome"]:
        return await self._backbone.answer(calls, sender)

    @ray.method(concurrency_group="ctl")
    async def cancel(self, caller: str) -> int:
        return await self._backbone.cancel(caller)

    @ray.method(concurrency_group="ctl")
    async def health(self) -> int:
        return self._backbone.health()

    @ray.method(concurrency_group="ctl")
    async def stats(self) -> BatcherStats:
        return self._backbone.stats()

    @ray.method(concurrency_group="ctl")
    async def describe(self) -> dict[str, Any]:
        return self._backbone.describe()


# no resources here: cluster/table.py sets them by .options()
BackboneActor: Any = ray.remote(  # pyright: ignore[reportCallIssue] - Ray types no groups
    concurrency_groups={"ctl": 4}
)(BackboneShell)
