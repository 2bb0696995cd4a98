"""The one table of what each part of the farm takes from a machine; options are made from it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Retries = Annotated[int, Field(ge=-1)]
"""How often to try again; -1 means for ever."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BackbonePlacement(_Row):
    """One actor that holds the frozen networks of a model set."""

    num_cpus: Share
    num_gpus: Share
    threads: Positive
    """Threads of one tensor operation."""
    max_concurrency: Positive
    """Calls that wait or run in the actor; surplus calls queue unseen, so well above callers."""
    max_batch: Positive
    max_queue: Positive
    """Items that wait to be computed before further ones are refused."""
    max_restarts: Retries
    max_task_retries: Retries
    """Calls are stateless, so a lost one is simply asked again."""


class TrainerPlacement(_Row):
    """One task that trains for one edit; the accelerator belongs to the backbones."""

    num_cpus: Share
    threads: Positive
    max_retries: Retries


class BoardPlacement(_Row):
    """The actor that holds progress and wishes to stop."""

    num_cpus: Share
    max_restarts: Retries


class ZooWorkerPlacement(_Row):
    """One worker of the zoo's training."""

    num_cpus: Share
    threads: Positive
    max_failures: Retries
    """Times that all workers start again from the last checkpoint."""


class LocalRay(_Row):
    """A Ray of our own on one machine."""

    object_store_bytes: Positive
    """Calls are small and weights never pass through the store."""


class Table(_Row):
    """Every placement of the farm."""

    backbone_on_cpu: BackbonePlacement
    backbone_on_gpu: BackbonePlacement
    trainer: TrainerPlacement
    board: BoardPlacement
    zoo_worker: ZooWorkerPlacement
    local_ray: LocalRay


_BACKBONE_ON_CPU = BackbonePlacement(
    num_cpus=1,
    num_gpus=0,
    threads=1,  # a second thread gave the tiny networks nothing, and trainers need the other core
    max_concurrency=2000,
    max_batch=16,
    max_queue=1024,
    max_restarts=-1,
    max_task_retries=-1,
)

TABLE = Table(
    backbone_on_cpu=_BACKBONE_ON_CPU,
    backbone_on_gpu=_BACKBONE_ON_CPU.model_copy(update={"num_gpus": 1.0}),
    trainer=TrainerPlacement(num_cpus=0.1, threads=1, max_retries=3),
    board=BoardPlacement(num_cpus=0, max_restarts=-1),
    zoo_worker=ZooWorkerPlacement(num_cpus=1, threads=1, max_failures=2),
    local_ray=LocalRay(object_store_bytes=512 * 2**20),
)
