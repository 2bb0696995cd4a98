"""How a caller finds the backbones of a model set. No torch here."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from actors.calls import Ref, result_of
from actors.fleet import HostedModel
from actors.fleet_actor import RoutedReplica
from actors.replicas import Replica
from farm.errors import UnavailableError

_REFRESH = 1.0  # seconds between two looks at which backbones there are and how full they are
_FLEET_PATIENCE = 30.0  # seconds for a fleet that starts anew, beyond those for a backbone
_TOLD = 5  # times that a fleet which holds nothing is told what to hold before it is given up


@dataclass(frozen=True)
class ModelRoute:
    """A model set on a fleet; it pickles, so trainers get it.

    Attributes:
        fleet: handle of the `FleetActor`.
        model: what is to be asked; a fleet that has lost it is told again.
        patience: seconds to wait for a backbone to be ready.
        proven: whether whoever made it saw one that was ready.
    """

    fleet: Any
    model: HostedModel
    patience: float = 300.0
    proven: bool = False

    def wait(
        self, at_least: int = 1, patience: float | None = None, *, proven: bool = False
    ) -> list[RoutedReplica]:
        """The backbones that are ready.

        Args:
            at_least: how many are needed.
            patience: seconds to wait for them once the fleet is there, instead of the route's.
            proven: whether the caller saw one that was ready.

        Raises:
            FarmError: as the networks failed to load, if they never did load; UnavailableError when
                too few are ready in time.
        """
        patience = self.patience if patience is None else patience
        for _ in range(1 + _TOLD):
            asked = self.fleet.route.remote(self.model.name, patience, at_least, proven)
            found = result_of(asked, patience + _FLEET_PATIENCE)
            if found is not None:
                return found
            # it is new, or started anew with its machine or alone: its backbones ended with it
            result_of(self.fleet.host.remote(self.model), patience + _FLEET_PATIENCE)
        raise UnavailableError(
            f"the fleet forgot {self.model.name} {_TOLD} times: its process ends again and again; "
            "look at `editfarm doctor`, then try again"
        )


class FleetReplicas:
    """The backbones of a route as one caller knows them; see `actors.replicas.Replicas`.

    Args:
        route: to the model set.
        clock: seconds, monotonic.
    """

    def __init__(self, route: ModelRoute, clock: Callable[[], float] = time.monotonic) -> None:
        self._route, self._clock = route, clock
        self._known: dict[int, Replica] = {}
        self._proven = route.proven
        self._news: Ref[list[RoutedReplica] | None] | None = None
        self._next_look = clock()

    def current(self) -> Sequence[Replica]:
        """Those that are ready, after a wait for the first of them."""
        self._look()
        if not self._known:
            self._note(self._route.wait(proven=self._proven))
        return list(self._known.values())

    def lost(self, replica: Replica) -> bool:
        """The fleet puts another in its place; it is waited for when it is needed."""
        self._known = {n: known for n, known in self._known.items() if known is not replica}
        return True

    def _look(self) -> None:
        """Take news that came in; ask for new ones now and then, and wait for none."""
        if self._news is not None:
            ready, _ = ray.wait([self._news], timeout=0)
            if not ready:
                return
            news, self._news = self._news, None
            try:
                self._note(result_of(news) or [])
            except UnavailableError:
                return  # the fleet starts anew: what is known will do meanwhile
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + _REFRESH
            self._news = self._route.fleet.route.remote(self._route.model.name)

    def _note(self, routed: Sequence[RoutedReplica]) -> None:
        known: dict[int, Replica] = {}
        for one in sorted(routed, key=lambda one: one.number):
            replica = self._known.get(one.number) or Replica(one.handle)
            # what this caller has there itself is counted apart
            replica.depth = max(0, one.depth - replica.outstanding)
            known[one.number] = replica
        self._known = known
        self._proven |= bool(known)
