from typing import get_args

import pytest
from pydantic import ValidationError

from farm.errors import InvalidRequestError
from farm.methods.learnable_regions.config import (
    LearnableRegionsConfig,
    Quirks,
    paper,
    reference,
    scenes,
    tiny,
)
from farm.requests.learnable_regions import LearnableRegionsParameters, Quirk

GIVEN = {
    "point_number": (5, "search.anchors.point_number"),
    "max_window_size": (7.5, "search.anchors.max_window_size"),
    "min_window_size": (1.75, "search.anchors.min_window_size"),
    "window_step": (0.35, "search.anchors.window_step"),
    "aspect_ratios": ((0.5, 2.0), "search.anchors.aspect_ratios"),
    "grounding": (0.77, "search.anchors.grounding"),
    "contrast": (0.33, "search.anchors.contrast"),
    "extent": (0.44, "search.anchors.extent"),
    "per_image_iteration": (17, "search.training.per_image_iteration"),
    "epochs": (3, "search.training.epochs"),
    "lr": (0.125, "search.training.lr"),
    "accum_grad": (7, "search.training.accum_grad"),
    "objective": ("reinforce", "search.training.objective"),
    "batch_size": (11, "search.batch_size"),
    "loss_alpha": (0.11, "search.loss.alpha"),
    "loss_beta": (0.12, "search.loss.beta"),
    "loss_gamma": (0.13, "search.loss.gamma"),
    "loss_delta": (0.14, "search.loss.delta"),
    "draws": (5, "selection.draws"),
    "test_alpha": (0.21, "selection.test_alpha"),
    "test_beta": (0.22, "selection.test_beta"),
    "test_gamma": (0.23, "selection.test_gamma"),
    "paste_threshold": (0.27, "selection.paste_threshold"),
    "draw_box": (True, "selection.draw_box"),
    "sizes": ("argmin", "search.chooser"),
    "preview_steps": (9, "search.preview_steps"),
    "guidance_scale": (2.25, "search.render.guidance_scale"),
    "template": ("{}, a drawing", "analysis.template"),
    "train": (False, "search.train"),
}
ELSEWHERE = {"num_steps", "finalists", "quirks", "reference", "long_prompt", "anchornet"}
"""Tested below, or of no concern to the configuration (the last two)."""
BASES = {"paper": paper(), "scenes": scenes(), "tiny": tiny()}


def flat(config, prefix=""):
    found = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def values(config):
    return flat(config.model_dump())


def test_every_parameter_of_a_request_is_listed_here():
    assert GIVEN.keys() | ELSEWHERE == set(LearnableRegionsParameters.model_fields)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", GIVEN)
def test_a_parameter_reaches_its_field_and_no_other(name, base):
    value, place = GIVEN[name]
    before = values(BASES[base])
    assert before[place] != value
    if name in ("max_window_size", "min_window_size"):
        before |= {"search.anchors.min_window_size": 1.0, "search.anchors.max_window_size": 8.0}
        start = BASES[base].model_dump()
        start["search"]["anchors"] |= {"min_window_size": 1.0, "max_window_size": 8.0}
        config = LearnableRegionsConfig.model_validate(start)
    else:
        config = BASES[base]
    changed = config.with_parameters(LearnableRegionsParameters(**{name: value}))
    assert values(changed) == before | {place: value}


@pytest.mark.parametrize("base", BASES)
def test_what_a_request_leaves_out_stays(base):
    assert BASES[base].with_parameters(LearnableRegionsParameters()) == BASES[base]


def test_the_last_rung_is_the_finalists():
    config = tiny()  # ((2, 3), (1, 4))
    assert rungs(config, num_steps=20) == ((2, 3), (1, 20))
    assert rungs(config, finalists=2) == ((2, 4),)  # a rung that drops nobody is left out
    assert rungs(config, finalists=5, num_steps=3) == ((5, 3),)
    assert rungs(config, num_steps=2) == ((1, 2),)  # as is one with more steps than the last


def rungs(config, **given):
    return config.with_parameters(LearnableRegionsParameters(**given)).selection.rungs


def test_every_quirk_is_a_switch_of_its_own():
    assert set(get_args(Quirk)) == set(Quirks.model_fields)
    for name in Quirks.model_fields:
        found = scenes().with_parameters(LearnableRegionsParameters(quirks=(name,)))
        expected = {n: n == name for n in Quirks.model_fields}
        assert found.search.quirks.model_dump() == expected
        assert found.analysis.quirks.model_dump() == expected


def test_reference_is_the_released_program_with_its_readme_s_command():
    found = scenes().with_parameters(LearnableRegionsParameters(reference=True, point_number=3))
    expected = reference().model_dump()
    expected["search"]["anchors"]["point_number"] = 3
    assert found.model_dump() == expected
    assert all(reference().search.quirks.model_dump().values())
    assert reference().search.anchors.half_widths == (4, 6, 8, 10, 12, 14)


def test_windows_that_leave_no_size_are_refused():
    with pytest.raises(InvalidRequestError, match=r"max_window_size is 1, below.*2\.75"):
        scenes().with_parameters(LearnableRegionsParameters(max_window_size=1))


def test_sizes_of_the_papers_seven_squares():
    assert len(paper().search.anchors.half_widths) == 7
    assert paper().search.anchors.num_sizes == 7


def test_scenes_cost_less_than_a_quarter_of_the_released_renders():
    """README: 99 renders."""
    from farm.methods.learnable_regions.work import full_renders, most_drawn

    assert full_renders(scenes(), most_drawn(scenes())) <= 99 / 4


@pytest.mark.parametrize(
    "given",
    [
        {"point_number": 0},
        {"max_window_size": 0},
        {"lr": -1},
        {"template": "no place"},
        {"quirks": ["Q2"]},
        {"windowsize": 3},
        {"aspect_ratios": [0]},
    ],
)
def test_what_cannot_be_meant_is_refused(given):
    with pytest.raises(ValidationError, match=next(iter(given))):
        LearnableRegionsParameters.model_validate(given)
