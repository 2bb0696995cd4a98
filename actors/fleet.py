"""Which backbones there are: starts, watches, replaces and stops them. No Ray and no torch here.

The rules, applied at every tick:

- A model set has a replica while anybody asks for it, more while its queues are long, none when it
  has been idle; within `min_replicas` and `max_replicas` of its placement.
- Where there is no room, the replica of another model set that has been idle longest makes room.
- A backbone that is gone is replaced; one that answers nothing, or whose step never ends, is
  started anew in its place: its callers' calls are asked again by Ray.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Protocol, TypeAlias

from actors.shell import Sealed
from actors.stats import BatcherStats
from cluster.table import BackbonePlacement, FleetPlacement
from farm.errors import FarmError

logger = logging.getLogger(__name__)

Report: TypeAlias = BatcherStats | FarmError
"""What a backbone answered when it was asked for its figures; an error: it is gone for good."""

_SETTLE = 2.5
"""Seconds until every caller has heard that a replica leaves."""
_LATE = 15.0
"""Seconds after which a backbone that is not ready may be one that waits for room."""
_ERROR_PAUSE = 10.0
"""Seconds before a model set that could not be loaded is tried again."""


@dataclass(frozen=True)
class HostedModel:
    """A model set that a fleet holds.

    Attributes:
        name: unique in the fleet.
        sealed: what a backbone loads.
        device: where to.
        placement: what it takes, and how many there may be.
    """

    name: str
    sealed: Sealed
    device: str
    placement: BackbonePlacement


class Launcher(Protocol):
    """Starts and ends processes."""

    def start(self, model: HostedModel) -> Any:
        """A new backbone's handle, at once; it gets ready, or waits for room, by itself."""
        ...

    def restart(self, handle: Any) -> None:
        """End the process and start another in its place, under the same handle."""
        ...

    def stop(self, handle: Any) -> None:
        """End it for good."""
        ...

    def has_room(self, placement: BackbonePlacement) -> bool:
        """Whether one more would start at once."""
        ...


@dataclass(eq=False)
class Member:
    """One backbone.

    Attributes:
        number: unique in the fleet, and never used again.
        handle: of the actor.
        heard: when it last answered, or was started.
        worked: when it last had something to do, or was started.
        stats: its latest figures; None: it is not ready yet.
        leaving: when it was decided that it goes.
        restarts: how often it was started anew.
        cramped: whether there was no room for it, so that it waits for some.
        eased: whether another made room for it.
    """

    number: int
    handle: Any
    heard: float
    worked: float
    stats: BatcherStats | None = None
    leaving: float | None = None
    restarts: int = 0
    cramped: bool = False
    eased: bool = False

    @property
    def depth(self) -> int:
        """Items that it has to do."""
        return 0 if self.stats is None else self.stats.depth


@dataclass
class ModelState:
    """A model set with its backbones.

    Attributes:
        hosted: what is held.
        asked: when somebody last wanted it.
        members: its backbones.
        error: why the latest of them did not get ready; None once one answers.
        proven: whether one was ready before: then it can be loaded, and an error is the machine's.
        blocked_until: when another may be tried.
    """

    hosted: HostedModel
    asked: float
    members: list[Member] = field(default_factory=list[Member])
    error: FarmError | None = None
    proven: bool = False
    blocked_until: float = -inf

    @property
    def staying(self) -> list[Member]:
        """Those that are not leaving."""
        return [member for member in self.members if member.leaving is None]

    @property
    def ready(self) -> list[Member]:
        """Those that callers may ask."""
        return [member for member in self.staying if member.stats is not None]


class Fleet:
    """All backbones of a farm.

    Args:
        launcher: of processes.
        figures: when to do what.
        clock: seconds, monotonic.
    """

    def __init__(
        self, launcher: Launcher, figures: FleetPlacement, clock: Callable[[], float]
    ) -> None:
        self._launcher, self._figures, self._clock = launcher, figures, clock
        self._numbers = 0
        self.models: dict[str, ModelState] = {}

    def host(self, model: HostedModel) -> None:
        """Hold a model set, in the place of one of the same name; asked for from now."""
        known = self.models.get(model.name)
        if known is not None and known.hosted == model:
            self.ask(model.name)
            return
        if known is not None:
            self.drop(model.name)
        self.models[model.name] = ModelState(model, self._clock())

    def ask(self, name: str) -> ModelState | None:
        """Note that somebody wants a model set; None: it is not hosted."""
        model = self.models.get(name)
        if model is not None:
            model.asked = self._clock()
        return model

    def drop(self, name: str) -> None:
        """Hold a model set no longer; its backbones end at once."""
        model = self.models.pop(name, None)
        for member in [] if model is None else model.members:
            self._launcher.stop(member.handle)

    def members(self) -> list[Member]:
        """All backbones."""
        return [member for model in self.models.values() for member in model.members]

    def tick(self, reports: Mapping[int, Report]) -> None:
        """Act on what was heard since the last tick, by number."""
        for model in self.models.values():
            for member in list(model.members):
                self._hear(model, member, reports.get(member.number))
        for model in self.models.values():
            self._let_go(model)
            self._resize(model)

    def _hear(self, model: ModelState, member: Member, report: Report | None) -> None:
        now = self._clock()
        if isinstance(report, BatcherStats):
            before = 0 if member.stats is None else member.stats.items
            if report.depth > 0 or report.items != before or member.stats is None:
                member.worked = now
            member.heard, member.stats, model.error = now, report, None
            model.proven = True
            if report.running_seconds > 2 * model.hosted.placement.step_seconds:
                self._restart(model, member, f"its step takes {report.running_seconds:.0f} s")
        elif report is not None:
            logger.warning("a backbone of %s is gone: %s", model.hosted.name, report)
            model.members.remove(member)
            if member.stats is None:  # it never got ready: the next one would not either
                model.error = report
                model.blocked_until = now + _ERROR_PAUSE
        elif member.stats is not None and now - member.heard > self._figures.silent_seconds:
            self._restart(model, member, f"it has been silent for {now - member.heard:.0f} s")

    def _restart(self, model: ModelState, member: Member, reason: str) -> None:
        logger.warning("a backbone of %s is started anew: %s", model.hosted.name, reason)
        self._launcher.restart(member.handle)
        member.heard = member.worked = self._clock()
        member.stats = None
        member.restarts += 1

    def _let_go(self, model: ModelState) -> None:
        now = self._clock()
        for member in list(model.members):
            if member.leaving is not None and now - member.leaving > _SETTLE and not member.depth:
                self._launcher.stop(member.handle)
                model.members.remove(member)

    def _wanted(self, model: ModelState) -> int:
        placement = model.hosted.placement
        depth = sum(member.depth for member in model.staying)
        idle = self._clock() - model.asked > self._figures.idle_seconds and not depth
        most = max(placement.min_replicas, placement.max_replicas)
        needed = max(0 if idle else 1, ceil(depth / self._figures.depth_per_replica))
        return min(max(needed, placement.min_replicas), most)

    def _resize(self, model: ModelState) -> None:
        now, staying, wanted = self._clock(), model.staying, self._wanted(model)
        self._make_room(model)
        if len(staying) < wanted and now >= model.blocked_until:
            self._grow(model, wanted - len(staying))
        elif len(staying) > wanted:
            idle = [m for m in model.ready if self._idle(m) > self._figures.idle_seconds]
            if idle:  # one a tick, the newest: the oldest remembers most
                idle[-1].leaving = now

    def _grow(self, model: ModelState, missing: int) -> None:
        placement = model.hosted.placement
        reserved = len(model.staying) < placement.min_replicas
        for _ in range(missing if reserved else 1):
            if not reserved and any(member.stats is None for member in model.staying):
                return  # one after the other: the first may be enough
            # without room too: it waits, and an autoscaler sees that it does
            cramped = not self._launcher.has_room(placement)
            self._numbers += 1
            now = self._clock()
            handle = self._launcher.start(model.hosted)
            model.members.append(Member(self._numbers, handle, now, now, cramped=cramped))
        self._make_room(model)

    def _make_room(self, model: ModelState) -> None:
        """For a backbone that waits for it, at the cost of one that is idle; once for each."""
        for member in model.staying:
            if member.stats is not None or member.eased:
                continue
            late = self._clock() - member.heard > _LATE  # several may have taken the same room
            if late and not member.cramped:
                member.cramped = not self._launcher.has_room(model.hosted.placement)
            if member.cramped:
                member.eased = self._evict_for(model)

    def _evict_for(self, model: ModelState) -> bool:
        """Stop the backbone of another model set that has been idle longest, if there is one."""
        idle = [
            (self._idle(member), other, member)
            for other in self.models.values()
            if other is not model
            and other.hosted.placement.num_gpus + other.hosted.placement.num_cpus > 0
            and len(other.staying) > other.hosted.placement.min_replicas
            for member in other.ready
            if self._idle(member) > self._figures.evict_seconds
        ]
        if not idle:
            return False
        _, other, member = max(idle, key=lambda one: one[0])
        logger.info("%s makes room for %s", other.hosted.name, model.hosted.name)
        self._launcher.stop(member.handle)
        other.members.remove(member)
        other.asked = -inf  # whoever still wants it asks again
        return True

    def _idle(self, member: Member) -> float:
        return 0.0 if member.depth else self._clock() - member.worked
