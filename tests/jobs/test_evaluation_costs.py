"""What an edit costs with the stages that it found made, told by those who made them."""

import math

import pytest

from farm.results import EditResult, Provenance
from jobs.evaluation.auto import chosen_shares, joint_cost
from jobs.evaluation.running import stage_costs, whole_cost


def result(edit_id, stages, made, **costs):
    provenance = Provenance(
        method="m",
        method_version=1,
        model_set="tiny",
        weights={},
        seed=0,
        config={},
        versions={},
        image_digest="0",
        stages=stages,
        stages_made=made,
        trainer_pid=1,
        backbone_pids=[2],
        work={},
        accelerator_seconds=sum(costs.values()),
        seconds=9.0,
        stage_seconds={},
        stage_accelerator_seconds=costs,
    )
    return EditResult(edit_id=edit_id, attempt="a", files={}, provenance=provenance)


MADE = result(
    "one", {"codes": "c", "prompt": "p"}, ["codes", "prompt"], codes=1, prompt=4, editing=2
)
FOUND = result("two", {"codes": "c", "prompt": "q"}, ["prompt"], prompt=8, editing=0.5)
OLD = result("old", {"codes": "c"}, [])


def test_stages_that_were_found_cost_what_they_cost_whoever_made_them():
    costs = stage_costs([MADE, FOUND])
    assert costs == {"c": 1, "p": 4, "q": 8}
    assert whole_cost(MADE, costs) == 7
    assert whole_cost(FOUND, costs) == 1 + 8 + 0.5
    assert math.isnan(whole_cost(FOUND, stage_costs([FOUND]))), "nobody told what codes cost"


def test_several_edits_pay_for_what_they_share_once():
    costs = stage_costs([MADE, FOUND])
    assert joint_cost([MADE, FOUND], costs) == pytest.approx(2 + 0.5 + 1 + 4 + 8)
    assert math.isnan(joint_cost([OLD], costs)), "an edit of before does not tell its own"


def test_shares_of_what_was_chosen_leave_failures_out():
    edits = [
        {"error": None, "chose_a": 1.0, "chose_b": 0.0},
        {"error": None, "chose_a": 0.0, "chose_b": 1.0},
        {"error": None, "chose_a": 1.0},
        {"error": "it broke"},
    ]
    assert chosen_shares(edits) == {"a": pytest.approx(2 / 3), "b": pytest.approx(1 / 3)}
    assert chosen_shares([]) == {}
