"""The table and the options that are made from it."""

import pytest
from pydantic import ValidationError

from actors.placement import (
    backbone_limits,
    backbone_options,
    backbone_placement,
    board_options,
    fleet_options,
    trainer_options,
)
from cluster.table import TABLE, BackbonePlacement
from farm.errors import UnavailableError


def test_options_are_the_tables_figures() -> None:
    assert backbone_options(backbone_placement("cpu")) == {
        "num_cpus": 1,
        "num_gpus": 0,
        "max_concurrency": 2000,
        "max_restarts": -1,
        "max_task_retries": -1,
        "scheduling_strategy": "SPREAD",
    }
    assert backbone_options(backbone_placement("cuda"))["num_gpus"] == 1
    assert board_options() == {"num_cpus": 0, "max_restarts": -1}
    assert trainer_options() == {
        "num_cpus": 0.1,
        "max_retries": 3,
        "retry_exceptions": [UnavailableError],
        "scheduling_strategy": "SPREAD",
    }


def test_labels_say_which_nodes_and_several_models_share_an_accelerator() -> None:
    row = TABLE.backbone_on_gpu.model_copy(
        update={"num_gpus": 0.25, "labels": {"farm/pool": "gpu", "farm/market": "!spot"}}
    )
    options = backbone_options(row)
    assert options["label_selector"] == {"farm/pool": "gpu", "farm/market": "!spot"}
    assert options["num_gpus"] == 0.25
    assert options["scheduling_strategy"] == "SPREAD"
    assert "label_selector" not in backbone_options(TABLE.backbone_on_gpu)


def test_limits_and_the_fleet_s_options_are_the_tables_figures() -> None:
    row = TABLE.backbone_on_cpu.model_copy(
        update={"max_tenant_queue": 7, "pad_batches": True, "step_seconds": 9.0}
    )
    limits = backbone_limits(row)
    assert (limits.max_batch, limits.max_queue, limits.max_tenant_queue) == (16, 1024, 7)
    assert (limits.step_seconds, limits.pad) == (9.0, True)
    assert fleet_options() == {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}


def test_every_trainer_that_fits_a_node_may_call_a_backbone_at_once() -> None:
    """A backbone must have more room for callers than a large node has trainers."""
    trainers_of_128_cpus = 128 / TABLE.trainer.num_cpus
    for row in (TABLE.backbone_on_cpu, TABLE.backbone_on_gpu):
        assert row.max_concurrency > trainers_of_128_cpus


@pytest.mark.parametrize("wrong", [{"num_cpu": 1}, {"max_restarts": -2}, {"max_batch": 0}])
def test_a_slip_in_the_table_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        BackbonePlacement.model_validate({**TABLE.backbone_on_cpu.model_dump(), **wrong})
