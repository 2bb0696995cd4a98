"""From the table of `cluster/` to the options that Ray takes, and to the device of a backbone."""

from typing import Any, Literal, TypeAlias

from actors.limits import Limits
from actors.pools import pool_options
from cluster.table import (
    TABLE,
    BackbonePlacement,
    BoardPlacement,
    FleetPlacement,
    TrainerPlacement,
)
from farm.errors import UnavailableError

Accelerator: TypeAlias = Literal["cuda", "cpu"]


def backbone_placement(accelerator: Accelerator) -> BackbonePlacement:
    """The row of the table for backbones on this kind of device."""
    return TABLE.backbone_on_gpu if accelerator == "cuda" else TABLE.backbone_on_cpu


def backbone_options(placement: BackbonePlacement) -> dict[str, Any]:
    """Options of a backbone actor: spread over the nodes that its labels allow."""
    options = placement.model_dump(
        include={"num_cpus", "num_gpus", "max_concurrency", "max_restarts", "max_task_retries"}
    )
    options["scheduling_strategy"] = "SPREAD"
    pool = pool_options("gpu") if placement.num_gpus else {}
    labels = {**pool.get("label_selector", {}), **placement.labels}
    return options | ({"label_selector": labels} if labels else {})


def backbone_limits(placement: BackbonePlacement) -> Limits:
    """Limits of a backbone's batcher."""
    return Limits(
        max_batch=placement.max_batch,
        max_queue=placement.max_queue,
        max_tenant_queue=placement.max_tenant_queue,
        batch_share=placement.batch_share,
        linger=placement.linger_seconds,
        gather=placement.gather_share,
        step_seconds=placement.step_seconds,
        pad=placement.pad_batches,
    )


def fleet_options(placement: FleetPlacement = TABLE.fleet) -> dict[str, Any]:
    """Options of the actor that starts and watches backbones."""
    return placement.model_dump(include={"num_cpus", "max_restarts", "max_task_retries"})


def board_options(placement: BoardPlacement = TABLE.board) -> dict[str, Any]:
    """Options of the progress board; its calls are not retried, as nothing depends on them."""
    return placement.model_dump()


def trainer_options(placement: TrainerPlacement = TABLE.trainer) -> dict[str, Any]:
    """Options of a trainer task: it starts again when the machine failed, not when the edit did.

    Spread over the nodes: Ray would fill half of one before it takes the next, start processes
    there while others are idle elsewhere, and trainers would share few cores.
    """
    return {
        **placement.model_dump(include={"num_cpus", "max_retries"}),
        "retry_exceptions": [UnavailableError],
        "scheduling_strategy": "SPREAD",
        **pool_options("trainers"),
    }
