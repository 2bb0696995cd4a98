"""Edits in the air, for whoever decides what starts, what is stopped and what is tried again.

`FarmSession.run_many` is enough where an edit's first outcome is its last. Here the caller keeps
the loop in its hands: it starts, asks what has ended, and may stop one edit for good.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from actors.board import Message
from actors.calls import Ref, result_of, results_of
from actors.farm_session import FarmSession
from actors.fleet_actor import FleetStats
from actors.stats import BatcherStats
from actors.trainers import Entry
from farm.errors import FarmError
from farm.runner import PreparedEdit

_HEALTH_PATIENCE = 10.0  # seconds


@dataclass
class Flight:
    """Running edits of one farm; for one thread.

    Attributes:
        farm: whose.
        entry: what every edit runs.
        tenant: on whose account.
    """

    farm: FarmSession
    entry: Entry
    tenant: str = "default"
    places: int | None = None
    """How many edits can run at once: as many as the cluster has room for."""
    _running: dict[Ref[Any], str] = field(default_factory=dict[Ref[Any], str])
    _asked: Ref[dict[str, FleetStats]] | None = None
    _stats: list[BatcherStats] = field(default_factory=list[BatcherStats])

    def listen(self, watch: Callable[[Mapping[str, Message]], None]) -> None:
        """For flights that compute in this process; here `messages` tells all."""
        del watch

    def start(self, name: str, request: PreparedEdit) -> None:
        """Start an edit; its name is unique among those that run."""
        ref = self.farm.submit(
            name,
            self.entry,
            request,
            tenant=self.tenant,
            priority=request.request.priority,
            tries_again=False,
        )
        self._running[ref] = name

    def finished(self, timeout: float) -> list[tuple[str, Any | FarmError]]:
        """Edits that have ended, with what they gave; waits until one has or the time is up.

        Args:
            timeout: seconds.
        """
        if not self._running:
            return []
        refs = list(self._running)
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        ended: list[tuple[str, Any | FarmError]] = []
        for ref in ready:
            name = self._running.pop(ref)
            self.farm.board.forget.remote(name)
            try:
                ended.append((name, result_of(ref)))
            except FarmError as error:
                ended.append((name, error))
        return ended

    def messages(self) -> Mapping[str, Message]:
        """The latest step of each running edit that has told of one."""
        running = set(self._running.values())
        return {n: m for n, m in self.farm.progress().items() if n in running}

    def is_placed(self, name: str) -> bool:
        """Whether the machine is there that an edit last told of.

        Where it is lost Ray starts the edit anew, as soon as there is room.
        """
        node = self.farm.progress().get(name, {}).get("node")
        return not node or any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())

    def stop(self, name: str, *, force: bool) -> None:
        """End an edit: between two steps, or at once by ending its process."""
        if not force:
            self.farm.stop(name)
            return
        for ref, running in self._running.items():
            if running == name:
                ray.cancel(ref, force=True)

    def is_healthy(self) -> bool:
        """Whether there is a backbone that answers."""
        try:
            results_of([each.health.remote() for each in self._backbones()], _HEALTH_PATIENCE)
        except FarmError:
            return False
        return True

    def restart_backbones(self) -> None:
        """End the backbones' processes; Ray starts them anew, and asks again what they owe."""
        try:
            found = self._backbones()
        except FarmError:
            return  # there is none
        for backbone in found:
            ray.kill(backbone, no_restart=False)

    def load(self) -> dict[str, float]:
        """`busy_seconds`, `items` and `batches` of all backbones, as they last said; never waits.

        A backbone that was started anew counts from nothing.
        """
        if self._asked is not None:
            ready, _ = ray.wait([self._asked], timeout=0)
            if ready:
                self._stats = self._answered(self._asked)
                self._asked = None
        if self._asked is None and self.farm.route is not None:
            self._asked = self.farm.route.fleet.stats.remote()
        names = ("busy_seconds", "items", "batches")
        return {n: float(sum(getattr(s, n) for s in self._stats)) for n in names}

    def _answered(self, ref: Ref[dict[str, FleetStats]]) -> list[BatcherStats]:
        try:
            models = result_of(ref)
        except FarmError:
            return self._stats
        found = models.get(self.farm.route.model.name) if self.farm.route is not None else None
        return [] if found is None else list(found.replicas.values())

    def _backbones(self) -> Sequence[Any]:
        """Those that are ready.

        Raises:
            UnavailableError: none is.
        """
        route = self.farm.route
        if route is None:
            return self.farm.backbones
        # a fleet that started anew is told what to hold here too: perhaps no trainer is left to
        return [replica.handle for replica in route.wait(patience=_HEALTH_PATIENCE)]

    def close(self) -> None:
        """Stop everything that runs."""
        if ray.is_initialized():  # else `cancel` would start a Ray, when this is closed at the end
            for ref in self._running:
                ray.cancel(ref)
        self._running.clear()
