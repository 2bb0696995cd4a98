"""A running farm: backbones that are ready, a board, and trainers as edits come."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import ray

from actors.backbone import BackboneActor, HostFactory
from actors.batcher import BatcherStats
from actors.board import Message, ProgressBoardActor
from actors.calls import Ref, map_bounded, result_of, results_of
from actors.executor import RemoteExecutor
from actors.local import accelerator
from actors.placement import (
    backbone_options,
    backbone_placement,
    board_options,
    trainer_options,
)
from actors.trainers import Entry, TrainerJob, train_edit
from cluster.table import BackbonePlacement
from farm.calls import Call
from farm.errors import FarmError, UnavailableError

_BOARD_PATIENCE = 5.0  # seconds to wait for a board that may be gone
_Request = TypeVar("_Request")


@dataclass
class FarmSession:
    """What `open_farm` gives: submit edits, watch them, stop them.

    Attributes:
        backbones: handles of the backbone actors, all ready.
        board: handle of the progress board.
        device: what the backbones compute on.
    """

    backbones: tuple[Any, ...]
    board: Any
    device: str
    _home: Iterator[int] = field(default_factory=count, repr=False)

    def submit(self, name: str, entry: Entry, request: Any) -> Ref[Any]:
        """Start the trainer of one edit; `actors.calls.result_of` waits for what `entry` returns.

        Args:
            name: of the edit, for `progress` and `stop`; unique among those that run.
            entry: see `actors.trainers.Entry`.
            request: its first argument.
        """
        self.board.forget.remote(name)  # an earlier edit's wish to stop is not this one's
        job = TrainerJob(name, entry, request, self.backbones, self.board, home=next(self._home))
        return train_edit.options(name=name, **trainer_options()).remote(job)

    def run_many(
        self,
        requests: Iterable[tuple[str, _Request]],
        entry: Entry,
        *,
        in_flight: int,
        report: Callable[[dict[str, Message]], None] | None = None,
    ) -> Iterator[tuple[str, _Request, Any | FarmError]]:
        """Run named requests, bounded in flight; each comes out with its outcome as it finishes.

        Args:
            requests: names and requests; drawn only as room becomes free.
            entry: see `actors.trainers.Entry`.
            in_flight: how many edits run at once.
            report: told what runs and how far it is, about twice a second.
        """
        idle = None if report is None else lambda: report(self.progress())
        outcomes = map_bounded(
            lambda item: self.submit(item[0], entry, item[1]),
            requests,
            in_flight=in_flight,
            idle=idle,
        )
        for (name, request), outcome in outcomes:
            self.board.forget.remote(name)
            yield name, request, outcome

    def progress(self) -> dict[str, Message]:
        """The latest message of every edit that runs; empty when the board is lost."""
        try:
            return result_of(self.board.snapshot.remote(), _BOARD_PATIENCE)
        except UnavailableError:
            return {}

    def stop(self, name: str) -> None:
        """Ask an edit to stop: it ends with an EditCancelledError between two steps."""
        self.board.stop.remote(name)

    def executor(self) -> RemoteExecutor:
        """An executor for this process, as trainers have."""
        return RemoteExecutor(self.backbones, home=next(self._home))

    def describe(self) -> list[dict[str, Any]]:
        """Process, device and networks of each backbone."""
        return results_of([backbone.describe.remote() for backbone in self.backbones])

    def backbone_pids(self) -> list[int]:
        """Process ids of the backbones, for provenance."""
        return results_of([backbone.health.remote() for backbone in self.backbones])

    def stats(self) -> list[BatcherStats]:
        """What each backbone has computed since its process started."""
        return results_of([backbone.stats.remote() for backbone in self.backbones])


@contextmanager
def open_farm(
    build_host: HostFactory,
    *,
    replicas: int = 1,
    placement: BackbonePlacement | None = None,
    warm_up: Sequence[Call] = (),
    timeout: float = 300.0,
) -> Generator[FarmSession]:
    """Start backbones and a board on the Ray of this process; stop them at the end.

    Args:
        build_host: loads the networks in each actor, e.g. `partial(load_host, "scenes")`.
        replicas: number of backbone actors; one per accelerator.
        placement: instead of the table's row for what Ray has.
        warm_up: calls that each backbone computes before it is ready.
        timeout: seconds for all backbones to become ready.

    Raises:
        FarmError: as `build_host` raised it; UnavailableError when there is no room for the
            backbones or they are not ready in time.
    """
    row = placement or backbone_placement(accelerator())
    device = "cuda" if row.num_gpus > 0 else "cpu"
    actor = BackboneActor.options(**backbone_options(row))
    backbones = tuple(
        actor.remote(
            build_host,
            device,
            warm_up=warm_up,
            threads=row.threads,
            max_batch=row.max_batch,
            max_queue=row.max_queue,
        )
        for _ in range(replicas)
    )
    board = ProgressBoardActor.options(**board_options()).remote()
    try:
        results_of([backbone.health.remote() for backbone in backbones], timeout)
        yield FarmSession(backbones, board, device)
    finally:
        for handle in (*backbones, board):
            ray.kill(handle)
