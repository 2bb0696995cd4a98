"""The one table of what each part of the farm takes from a machine; options are made from it."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Retries = Annotated[int, Field(ge=-1)]
"""How often to try again; -1 means for ever."""
Seconds = Annotated[float, Field(gt=0)]


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
    max_tenant_queue: Positive | None = None
    """The same for the items of one tenant."""
    batch_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Of the time, that batch work keeps while interactive work waits too."""
    linger_seconds: Share = 0.005
    """The longest wait for an interactive caller's next step."""
    gather_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Of a batch's time, for which it waits for callers who were just answered; more if they are
    seen to save more, and 0: never."""
    step_seconds: Seconds = 300.0
    """A step that takes longer hangs: the process is replaced. First steps compile."""
    pad_batches: bool = False
    """Fill batches up to powers of two, so that a GPU sees few shapes."""
    labels: Mapping[str, str] = {}
    """Which nodes may hold it, as Ray's label selectors say it."""
    min_replicas: Annotated[int, Field(ge=0)] = 0
    """Never fewer, whatever else needs the room; 0: none while nobody asks."""
    max_replicas: Positive = 1


class FleetPlacement(_Row):
    """The small actor that starts, watches and stops backbones."""

    num_cpus: Share
    max_restarts: Retries
    max_task_retries: Retries
    """Whatever it is asked may be asked twice, so callers need not know that it started anew."""
    tick_seconds: Seconds
    """How often it looks at every backbone."""
    depth_per_replica: Positive
    """Items waiting or computed on average beyond which one more replica is started."""
    idle_seconds: Seconds
    """A replica beyond `min_replicas` that had nothing to do for so long is stopped."""
    evict_seconds: Seconds
    """The same where another model set waits for the room."""
    silent_seconds: Seconds
    """A backbone that answers nothing for so long is started anew."""


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
    inline_bytes: Positive
    """Calls and answers up to this size travel in the message itself, which takes half the time of
    the way through the object store (236 kB: 1.6 against 3.6 ms). On a cluster the same is the
    environment's RAY_max_direct_call_object_size, on every node."""


class Table(_Row):
    """Every placement of the farm."""

    backbone_on_cpu: BackbonePlacement
    backbone_on_gpu: BackbonePlacement
    fleet: FleetPlacement
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
    fleet=FleetPlacement(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        tick_seconds=0.5,
        depth_per_replica=32,  # two full batches: one is computed while the other gathers
        idle_seconds=300.0,
        evict_seconds=2.0,
        silent_seconds=30.0,  # loading weights holds the GIL for seconds now and then
    ),
    trainer=TrainerPlacement(num_cpus=0.1, threads=1, max_retries=3),
    board=BoardPlacement(num_cpus=0, max_restarts=-1),
    zoo_worker=ZooWorkerPlacement(num_cpus=1, threads=1, max_failures=2),
    local_ray=LocalRay(object_store_bytes=512 * 2**20, inline_bytes=2**20),
)
