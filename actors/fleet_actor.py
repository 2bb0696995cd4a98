"""The fleet as an actor: small (no torch), shared by name, the owner of all backbones."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import available_resources_per_node

from actors.calls import awaited
from actors.fleet import Fleet, HostedModel, Member, Report
from actors.placement import backbone_limits, backbone_options
from actors.shell import BackboneActor
from actors.stats import BatcherStats
from cluster.table import BackbonePlacement, FleetPlacement
from farm.errors import FarmError, UnavailableError


@dataclass(frozen=True)
class RoutedReplica:
    """A backbone that may be asked.

    Attributes:
        number: unique in the fleet.
        handle: of the actor.
        depth: items that it had to do a moment ago.
    """

    number: int
    handle: Any
    depth: int


@dataclass(frozen=True)
class FleetStats:
    """What a fleet knows of one model set, at its last tick.

    Attributes:
        replicas: figures of each backbone that is ready, by its number.
        starting: backbones that are not ready.
        leaving: backbones that end when they have nothing to do.
        restarts: how often a backbone that hung was started anew.
    """

    replicas: dict[int, BatcherStats]
    starting: int
    leaving: int
    restarts: int


class RayLauncher:
    """Backbones as actors, which the process that has this owns."""

    def start(self, model: HostedModel) -> Any:
        """See `actors.fleet.Launcher`."""
        row = model.placement
        return BackboneActor.options(**backbone_options(row)).remote(
            model.sealed,
            model.device,
            threads=row.threads,
            limits=backbone_limits(row),
            memory_share=min(1.0, row.num_gpus) or 1.0,
        )

    def restart(self, handle: Any) -> None:
        """See `actors.fleet.Launcher`."""
        ray.kill(handle, no_restart=False)

    def stop(self, handle: Any) -> None:
        """See `actors.fleet.Launcher`."""
        ray.kill(handle)

    def has_room(self, placement: BackbonePlacement) -> bool:
        """Whether one node has it all, and the labels."""
        wanted = backbone_options(placement).get("label_selector", {})
        labels = {node["NodeID"]: node["Labels"] for node in ray.nodes() if node["Alive"]}
        return any(
            resources.get("CPU", 0) >= placement.num_cpus
            and resources.get("GPU", 0) >= placement.num_gpus
            and _allowed(labels.get(node, {}), wanted)
            for node, resources in available_resources_per_node().items()
        )


def _allowed(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    """Plain selectors alone are judged here; Ray judges all of them when it starts the actor."""
    return all(
        labels.get(name) == value
        for name, value in wanted.items()
        if not value.startswith(("!", "in("))
    )


class FleetShell:
    """See `actors.fleet.Fleet`, whose clockwork this is.

    Args:
        figures: when to do what.
    """

    def __init__(self, figures: FleetPlacement) -> None:
        self._figures = figures
        self._fleet = Fleet(RayLauncher(), figures, time.monotonic)
        self._asked: dict[int, asyncio.Task[Report]] = {}
        self._nudge = asyncio.Event()
        self._ticked = asyncio.Event()  # a new one at each tick
        self._watching: asyncio.Task[None] | None = None

    async def host(self, model: HostedModel) -> None:
        """Hold a model set from now on."""
        self._fleet.host(model)
        self._wake()

    async def route(
        self, name: str, patience: float = 0.0, at_least: int = 1, proven: bool = False
    ) -> list[RoutedReplica] | None:
        """The backbones of a model set that are ready; None: it is not hosted here.

        Args:
            name: of the model set; whoever asks wants it.
            patience: seconds to wait for them to be as many as `at_least`.
            at_least: how many are needed.
            proven: whether the caller saw one that was ready: a fleet that started anew did not.

        Raises:
            FarmError: as the networks failed to load, if they never did load; UnavailableError when
                too few are ready in time.
        """
        deadline = time.monotonic() + patience
        while True:
            model = self._fleet.ask(name)
            if model is None:
                return None
            model.proven |= proven
            if len(model.ready) >= at_least or patience <= 0:
                return [RoutedReplica(m.number, m.handle, m.depth) for m in model.ready]
            if model.error is not None and not model.proven:
                raise model.error  # the next one would fail too
            self._wake()
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"{len(model.ready)} of {at_least} backbones of {name} were ready within "
                    f"{patience:.1f} s: {_why_not(model.error)}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ticked.wait(), min(left, self._figures.tick_seconds))

    async def drop(self, name: str) -> None:
        """Hold a model set no longer."""
        self._fleet.drop(name)

    async def stats(self) -> dict[str, FleetStats]:
        """By model set."""
        return {
            name: FleetStats(
                {m.number: m.stats for m in model.members if m.stats is not None},
                sum(m.stats is None for m in model.members),
                sum(m.leaving is not None for m in model.members),
                sum(m.restarts for m in model.members),
            )
            for name, model in self._fleet.models.items()
        }

    async def cancel(self, caller: str) -> int:
        """Drop the calls of a caller everywhere; how many they were."""
        ready = [member for member in self._fleet.members() if member.stats is not None]
        found = await asyncio.gather(*[_cancelled(member, caller) for member in ready])
        return sum(found)

    async def close(self) -> None:
        """End all backbones."""
        if self._watching is not None:
            self._watching.cancel()
        for name in list(self._fleet.models):
            self._fleet.drop(name)

    def _wake(self) -> None:
        if (
            self._watching is None or self._watching.done()
        ):  # done: a tick failed, and the log says so
            self._watching = asyncio.create_task(self._watch())
        self._nudge.set()

    async def _watch(self) -> None:
        while True:
            self._nudge.clear()
            start = time.monotonic()
            self._fleet.tick(await self._heard())
            ticked, self._ticked = self._ticked, asyncio.Event()
            ticked.set()
            left = self._figures.tick_seconds - (time.monotonic() - start)
            starting = [
                self._asked[member.number]
                for member in self._fleet.members()
                if member.stats is None and member.number in self._asked
            ]
            nudged = asyncio.create_task(self._nudge.wait())
            await asyncio.wait(
                {nudged, *starting}, timeout=max(0.01, left), return_when=asyncio.FIRST_COMPLETED
            )
            nudged.cancel()

    async def _heard(self) -> dict[int, Report]:
        """What came in; those that owe no answer are asked anew, and have a moment for it."""
        members = self._fleet.members()
        for member in members:
            if member.number not in self._asked:
                self._asked[member.number] = asyncio.create_task(_report(member))
        if self._asked:
            await asyncio.wait(self._asked.values(), timeout=self._figures.tick_seconds / 5)
        numbers = {member.number for member in members}
        heard = {n: task.result() for n, task in self._asked.items() if task.done()}
        for number, task in list(self._asked.items()):
            if task.done():
                del self._asked[number]
            elif number not in numbers:
                self._asked.pop(number).cancel()
        return {number: report for number, report in heard.items() if number in numbers}


def _why_not(error: FarmError | None) -> str:
    if error is None:
        return "there is no room for them, or their weights load slowly"
    return f"the latest did not come back, and others are tried: {error.message}"


async def _report(member: Member) -> Report:
    try:
        return await awaited(member.handle.stats.remote())
    except FarmError as error:
        return error


async def _cancelled(member: Member, caller: str) -> int:
    try:
        return await awaited(member.handle.cancel.remote(caller), 1.0)
    except FarmError:
        return 0


# no resources here: cluster/table.py sets them by .options()
FleetActor: Any = ray.remote(FleetShell)
