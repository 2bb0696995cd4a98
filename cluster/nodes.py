"""The one table of machines: kinds of nodes, how many of each, and what they are labelled.

Everything that names a machine is rendered from it (`editfarm cluster render`): launcher files,
Kubernetes worker groups, the fake nodes of the tests, and the paper plan. Spot and on-demand kinds
of a pool have the same shape, for only between equal shapes does Ray's autoscaler follow
`priority`: spot first, and on-demand where spot is at its maximum or cannot be had.
"""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.table import TABLE

Pool: TypeAlias = Literal["head", "trainers", "gpu"]
Market: TypeAlias = Literal["on-demand", "spot"]

POOL_LABEL = "farm/pool"
MARKET_LABEL = "farm/market"
KIND_LABEL = "farm/kind"
TRAINER_GIB = 0.45
"""Resident memory of one trainer process: torch and an edit; measured, docs/performance.md."""
_MEMORY_SHARE = 0.7
"""Of a node's memory that trainers may fill; the rest is the object store and the system."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}[a-z0-9]$")]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Accelerator(_Row):
    """One GPU of a node."""

    name: str
    """As Ray and Kubernetes' node labels call it, e.g. "L4"."""
    memory_gib: Positive


class NodeKind(_Row):
    """Machines that are alike and replaceable by each other."""

    name: Name
    """Of the node type, the Kubernetes worker group, and the label."""
    pool: Pool
    market: Market
    cpus: Positive
    """Cores of the machine; what Ray may give away is `ray_cpus`."""
    memory_gib: Positive
    gpus: Count = 0
    accelerator: Accelerator | None = None
    min_nodes: Count = 0
    max_nodes: Positive
    idle_seconds: Positive = 300
    """For which nothing runs on a node before it is given back."""
    priority: int = 0
    """Higher ones are started first among kinds of one shape."""
    disk_gib: Positive = 100
    aws_type: str
    gcp_type: str
    dollars_per_hour: Annotated[float, Field(ge=0)]
    """A hint: about AWS's list price in us-east-1; look it up before you rely on it."""

    @property
    def ray_cpus(self) -> int:
        """Cores for Ray to give away: none on the head, which must not run out of breath."""
        return 0 if self.pool == "head" else self.cpus

    @property
    def shm_gib(self) -> int:
        """Shared memory for Ray's object store: 30 % of the machine's."""
        return max(1, round(self.memory_gib * 0.3))

    @property
    def labels(self) -> dict[str, str]:
        """Of the Ray node."""
        return {POOL_LABEL: self.pool, MARKET_LABEL: self.market, KIND_LABEL: self.name}

    @property
    def resources(self) -> dict[str, int]:
        """Of the Ray node, by Ray's names."""
        return {"CPU": self.ray_cpus} | ({"GPU": self.gpus} if self.gpus else {})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_nodes > self.max_nodes:
            raise ValueError(f"{self.name}: min_nodes {self.min_nodes} is above {self.max_nodes}")
        if (self.gpus > 0) != (self.accelerator is not None):
            raise ValueError(f"{self.name}: a node has GPUs exactly where it names an accelerator")
        if (self.pool == "gpu") != (self.gpus > 0):
            raise ValueError(f"{self.name}: GPUs belong to the pool gpu, and to no other")
        if self.pool == "head" and self.market == "spot":
            raise ValueError(f"{self.name}: a head that may be taken away takes all along")
        needed = self.trainers * TRAINER_GIB
        if self.pool == "trainers" and needed > self.memory_gib * _MEMORY_SHARE:
            raise ValueError(
                f"{self.name}: {self.trainers} trainers of {TRAINER_GIB} GiB do not fit into "
                f"{self.memory_gib} GiB: take more memory or fewer cores"
            )
        return self

    @property
    def trainers(self) -> int:
        """Trainers that Ray will run on one such node at once."""
        return int(self.ray_cpus / TABLE.trainer.num_cpus)


class NodeTable(_Row):
    """All kinds of nodes of a farm."""

    kinds: tuple[NodeKind, ...]

    @property
    def head(self) -> NodeKind:
        return next(kind for kind in self.kinds if kind.pool == "head")

    @property
    def workers(self) -> tuple[NodeKind, ...]:
        return tuple(kind for kind in self.kinds if kind.pool != "head")

    @property
    def max_workers(self) -> int:
        return sum(kind.max_nodes for kind in self.workers)

    def kind(self, name: str) -> NodeKind | None:
        """The kind of that name, if there is one."""
        return next((kind for kind in self.kinds if kind.name == name), None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({kind.name for kind in self.kinds}) != len(self.kinds):
            raise ValueError("two kinds of one name")
        if [kind.pool for kind in self.kinds].count("head") != 1:
            raise ValueError("a farm has one kind of head")
        for pool in ("trainers", "gpu"):
            shapes = {(kind.cpus, kind.gpus) for kind in self.workers if kind.pool == pool}
            if len(shapes) != 1:
                raise ValueError(
                    f"the kinds of pool {pool} have {len(shapes)} shapes: priority decides only "
                    "between equal ones"
                )
        return self


_L4 = Accelerator(name="L4", memory_gib=24)


def _trainer(market: Market, priority: int, dollars: float, max_nodes: int) -> NodeKind:
    return NodeKind(
        name=f"trainer-{market}",
        pool="trainers",
        market=market,
        cpus=16,
        memory_gib=128,  # 160 trainers of 0.45 GiB, and the object store
        max_nodes=max_nodes,
        priority=priority,
        aws_type="r7i.4xlarge",
        gcp_type="n2-highmem-16",
        dollars_per_hour=dollars,
    )


def _gpu(market: Market, priority: int, dollars: float, max_nodes: int) -> NodeKind:
    return NodeKind(
        name=f"gpu-{market}",
        pool="gpu",
        market=market,
        cpus=8,
        memory_gib=32,
        gpus=1,
        accelerator=_L4,
        max_nodes=max_nodes,
        idle_seconds=600,  # a model's load and warm-up are lost with the node
        priority=priority,
        disk_gib=200,
        aws_type="g6.2xlarge",
        gcp_type="g2-standard-8",
        dollars_per_hour=dollars,
    )


NODES = NodeTable(
    kinds=(
        NodeKind(
            name="head",
            pool="head",
            market="on-demand",
            cpus=8,
            memory_gib=32,
            min_nodes=1,
            max_nodes=1,
            aws_type="m7i.2xlarge",
            gcp_type="n2-standard-8",
            dollars_per_hour=0.40,
        ),
        _trainer("spot", 10, 0.45, max_nodes=8),
        _trainer("on-demand", 0, 1.06, max_nodes=4),
        _gpu("spot", 10, 0.45, max_nodes=16),
        _gpu("on-demand", 0, 0.98, max_nodes=4),
    )
)


def selector(pool: Pool) -> dict[str, str]:
    """Label selector of what belongs to a pool."""
    return {POOL_LABEL: pool}


def label_flag(kind: NodeKind) -> str:
    """The kind's labels as `ray start --labels` takes them."""
    return ",".join(f"{name}={value}" for name, value in kind.labels.items())
