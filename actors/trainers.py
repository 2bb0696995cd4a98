"""One edit as one Ray task: a light process that owns the little that is trained.

What is done is a plain callable that knows no Ray. A trainer imports torch and no library of
networks; these live in the backbones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
import torch

from actors.executor import RemoteExecutor
from actors.progress import BoardLine
from actors.route import FleetReplicas, ModelRoute
from actors.sender import ANYBODY, Sender
from actors.tracing import flush, span
from cluster.table import TABLE
from farm.calls import Executor
from farm.progress import STARTING, Progress


class Entry(Protocol):
    """What a trainer runs; it pickles, and carries along what it needs (store, tenant, …)."""

    def __call__(
        self,
        request: Any,
        executor: Executor,
        report_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> Any:
        """Do the whole edit.

        Raises:
            FarmError: an UnavailableError makes Ray start the task again.
        """
        ...


@dataclass(frozen=True)
class TrainerJob:
    """All that a trainer task is given.

    Attributes:
        name: of the edit, on the progress board.
        entry: what to run.
        request: what to run it with.
        backbones: handles of the backbone actors, or where to find them.
        board: handle of the progress board.
        sender: for whom it asks.
        home: number of the preferred backbone.
        timeout: seconds for one round trip to a backbone.
    """

    name: str
    entry: Entry
    request: Any
    backbones: tuple[Any, ...] | ModelRoute
    board: Any
    sender: Sender = ANYBODY
    home: int = 0
    timeout: float | None = 600.0


def run_trainer(job: TrainerJob) -> Any:
    """Run the job's entry with a far executor, in this process."""
    torch.set_num_threads(TABLE.trainer.threads)
    found = job.backbones
    backbones = FleetReplicas(found) if isinstance(found, ModelRoute) else found
    line = BoardLine(job.board, job.name)
    line.report(Progress(STARTING, 0, 0))  # until then it waits for room, and cannot hang
    try:
        with span("trainer", job.sender.trace, edit=job.name, tenant=job.sender.tenant) as trace:
            sender = replace(job.sender, trace=trace)
            executor = RemoteExecutor(backbones, sender=sender, home=job.home, timeout=job.timeout)
            return job.entry(job.request, executor, line.report, line.should_stop)
    finally:
        line.close()
        flush()


# no resources here: cluster/table.py sets them by .options()
train_edit = ray.remote(run_trainer)
