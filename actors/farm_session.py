"""A running farm: backbones that are ready, a board, and trainers as edits come."""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

import ray

from actors.backbone import HostFactory
from actors.board import Message, ProgressBoardActor
from actors.calls import Ref, map_bounded, result_of, results_of
from actors.executor import RemoteExecutor
from actors.fleet import HostedModel
from actors.fleet_actor import FleetActor, FleetStats
from actors.local import accelerator
from actors.placement import backbone_placement, board_options, fleet_options, trainer_options
from actors.pools import start_patience
from actors.route import FleetReplicas, ModelRoute
from actors.sender import Priority, Sender
from actors.shell import Sealed
from actors.stats import BatcherStats
from actors.tracing import here
from actors.trainers import Entry, TrainerJob, train_edit
from cluster.table import TABLE, BackbonePlacement
from farm.calls import Call
from farm.errors import FarmError, UnavailableError

_CLOSING_PATIENCE = 5.0  # seconds
_BOARD_PATIENCE = 5.0  # seconds to wait for a board that may be gone
_Request = TypeVar("_Request")


@dataclass
class FarmSession:
    """What `open_farm` and `join_farm` give: submit edits, watch them, stop them.

    Attributes:
        backbones: handles of the backbone actors that were ready when it was made.
        board: handle of the progress board.
        device: what the backbones compute on.
        route: where to find the backbones of this moment; None: they are always the same.
    """

    backbones: tuple[Any, ...]
    board: Any
    device: str
    route: ModelRoute | None = None
    _home: Iterator[int] = field(default_factory=count, repr=False)

    def submit(
        self,
        name: str,
        entry: Entry,
        request: Any,
        *,
        tenant: str = "default",
        priority: Priority = "batch",
        tries_again: bool = True,
    ) -> Ref[Any]:
        """Start the trainer of one edit; `actors.calls.result_of` waits for what `entry` returns.

        Args:
            name: of the edit, for `progress` and `stop`; unique among those that run.
            entry: see `actors.trainers.Entry`.
            request: its first argument.
            tenant: on whose account the accelerator's time goes.
            priority: "interactive" goes before "batch", which keeps a guaranteed share.
            tries_again: whether Ray starts it again at once after an UnavailableError; a dead
                process or machine is always made good for.
        """
        self.board.forget.remote(name)  # an earlier edit's wish to stop is not this one's
        sender = Sender(tenant, priority, caller=name, trace=here())
        backbones = self.route or self.backbones
        job = TrainerJob(name, entry, request, backbones, self.board, sender, next(self._home))
        options = trainer_options() | ({} if tries_again else {"retry_exceptions": False})
        return train_edit.options(name=name, **options).remote(job)

    def run_many(
        self,
        requests: Iterable[tuple[str, _Request]],
        entry: Entry,
        *,
        in_flight: int,
        tenant: str = "default",
        priority_of: Callable[[_Request], Priority] = lambda _: "batch",
        report: Callable[[dict[str, Message]], None] | None = None,
    ) -> Iterator[tuple[str, _Request, Any | FarmError]]:
        """Run named requests, bounded in flight; each comes out with its outcome as it finishes.

        Args:
            requests: names and requests; drawn only as room becomes free.
            entry: see `actors.trainers.Entry`.
            in_flight: how many edits run at once.
            tenant: whose edits they are.
            priority_of: a request's priority.
            report: told what runs and how far it is, about twice a second.
        """
        idle = None if report is None else lambda: report(self.progress())
        outcomes = map_bounded(
            lambda item: self.submit(
                item[0], entry, item[1], tenant=tenant, priority=priority_of(item[1])
            ),
            requests,
            in_flight=in_flight,
            idle=idle,
        )
        for (name, request), outcome in outcomes:
            self.board.forget.remote(name)
            yield name, request, outcome

    def progress(self, looked_at: Collection[str] = ()) -> dict[str, Message]:
        """The latest message of every edit that runs; empty when the board is lost.

        Args:
            looked_at: edits that shall show pictures of themselves, for some seconds.
        """
        try:
            return result_of(self.board.snapshot.remote(tuple(looked_at)), _BOARD_PATIENCE)
        except UnavailableError:
            return {}

    def stop(self, name: str) -> None:
        """Ask an edit to stop: it ends with an EditCancelledError.

        Its calls are dropped at once, what is being computed for it after its present step; between
        two calls the edit sees it for itself.
        """
        self.board.stop.remote(name)
        if self.route is not None:
            self.route.fleet.cancel.remote(name)
            return
        for backbone in self.backbones:
            backbone.cancel.remote(name)

    def executor(
        self, tenant: str = "default", priority: Priority = "batch", caller: str = ""
    ) -> RemoteExecutor:
        """An executor for this process, as trainers have; see `actors.sender.Sender`."""
        return RemoteExecutor(
            self.backbones if self.route is None else FleetReplicas(self.route),
            sender=Sender(tenant, priority, caller),
            home=next(self._home),
        )

    def describe(self) -> list[dict[str, Any]]:
        """Process, device and networks of each backbone."""
        return results_of([backbone.describe.remote() for backbone in self._present()])

    def backbone_pids(self) -> list[int]:
        """Process ids of the backbones, for provenance."""
        return results_of([backbone.health.remote() for backbone in self._present()])

    def stats(self) -> list[BatcherStats]:
        """What each backbone has computed since its process started."""
        return results_of([backbone.stats.remote() for backbone in self._present()])

    def fleet_stats(self) -> dict[str, FleetStats]:
        """Backbones of all model sets of the fleet, as it saw them last; empty without a fleet."""
        return {} if self.route is None else result_of(self.route.fleet.stats.remote())

    def _present(self) -> list[Any]:
        """The backbones of this moment."""
        if self.route is None:
            return list(self.backbones)
        return [replica.handle for replica in self.route.wait()]


@contextmanager
def open_farm(
    build_host: HostFactory,
    *,
    replicas: int = 1,
    max_replicas: int | None = None,
    placement: BackbonePlacement | None = None,
    device: str | None = None,
    warm_up: Sequence[Call] = (),
    timeout: float | None = None,
) -> Generator[FarmSession]:
    """Start a fleet of backbones and a board on the Ray of this process; stop them at the end.

    Args:
        build_host: loads the networks in each actor, e.g. `partial(load_host, "scenes")`.
        replicas: number of backbone actors that are always there; one per accelerator.
        max_replicas: how many there may be while queues are long; no more than `replicas` if None.
        placement: instead of the table's row for what Ray has.
        device: of the backbones; by default CUDA where the placement takes a GPU.
        warm_up: calls that each backbone computes before it is ready.
        timeout: seconds for all backbones to become ready; longer where machines must start first.

    Raises:
        FarmError: as `build_host` raised it; UnavailableError when there is no room for the
            backbones or they are not ready in time.
    """
    timeout = timeout or start_patience()
    most = max(replicas, max_replicas or replicas)
    model = _hosted("backbones", build_host, placement, device, warm_up, least=replicas, most=most)
    fleet = FleetActor.options(**fleet_options()).remote(TABLE.fleet)
    board = ProgressBoardActor.options(**board_options()).remote()
    try:
        yield _session(ModelRoute(fleet, model, timeout), board, replicas)
    finally:
        with suppress(FarmError):
            result_of(fleet.close.remote(), _CLOSING_PATIENCE)
        for handle in (fleet, board):
            ray.kill(handle)


def join_farm(
    build_host: HostFactory,
    model: str,
    *,
    name: str = "editfarm",
    replicas: int = 0,
    max_replicas: int = 1,
    placement: BackbonePlacement | None = None,
    device: str | None = None,
    warm_up: Sequence[Call] = (),
    timeout: float | None = None,
) -> FarmSession:
    """The farm of this name, which all doors of a cluster share; started if there is none.

    It outlives this process, until `leave_farm`. Its backbones come when they are first asked for
    and go when nobody does, but for `replicas` of them.

    Args:
        build_host: see `open_farm`.
        model: name of the model set; the same for all who ask for it.
        name: of the farm.
        replicas: backbones of this model set that are always there.
        max_replicas: how many there may be while queues are long.
        placement: see `open_farm`.
        device: see `open_farm`.
        warm_up: see `open_farm`.
        timeout: seconds for a first backbone to become ready, whenever it is first asked for.
    """
    timeout = timeout or start_patience()
    hosted = _hosted(
        model, build_host, placement, device, warm_up, least=replicas, most=max_replicas
    )
    shared = {"namespace": name, "lifetime": "detached", "get_if_exists": True}
    fleet = FleetActor.options(name="fleet", **shared, **fleet_options()).remote(TABLE.fleet)
    board = ProgressBoardActor.options(name="board", **shared, **board_options()).remote()
    result_of(fleet.host.remote(hosted), timeout)
    return FarmSession((), board, hosted.device, ModelRoute(fleet, hosted, timeout))


def leave_farm(name: str = "editfarm") -> None:
    """End the farm of this name, with all its backbones; nothing if there is none."""
    for part in ("fleet", "board"):
        with suppress(ValueError):  # Ray's word for: there is none
            handle = ray.get_actor(part, namespace=name)
            ray.kill(handle)


def _hosted(
    name: str,
    build_host: HostFactory,
    placement: BackbonePlacement | None,
    device: str | None,
    warm_up: Sequence[Call],
    *,
    least: int,
    most: int,
) -> HostedModel:
    row = placement or backbone_placement(accelerator())
    row = row.model_copy(update={"min_replicas": least, "max_replicas": most})
    device = device or ("cuda" if row.num_gpus > 0 else "cpu")
    return HostedModel(name, Sealed.of(build_host, warm_up), device, row)


def _session(route: ModelRoute, board: Any, replicas: int) -> FarmSession:
    ready = route.wait(max(1, replicas))
    handles = tuple(one.handle for one in ready)
    return FarmSession(handles, board, route.model.device, replace(route, proven=True))
