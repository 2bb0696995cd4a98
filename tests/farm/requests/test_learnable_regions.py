import re

import pytest
from pydantic import ValidationError

from farm.requests import describe
from farm.requests.learnable_regions import LearnableRegionsParameters, LearnableRegionsRequest

GIVEN = {"image": "1.png", "source_prompt": "trees", "target_prompt": "a big tree"}


def request(**given):
    return LearnableRegionsRequest.model_validate(GIVEN | given)


def test_what_is_left_out_is_the_model_set_s():
    found = request()
    assert found.method == "learnable_regions"
    given = found.parameters.model_dump(exclude_none=True)
    assert given == {"long_prompt": "refuse", "train": True, "quirks": (), "reference": False}


def test_the_readme_s_command_is_a_request():
    flags = {
        "draw_box": True,
        "lr": 5e-3,
        "max_window_size": 15,
        "per_image_iteration": 10,
        "epochs": 1,
        "point_number": 9,
        "batch_size": 1,
    }
    assert request(seed=42, parameters=flags).parameters.max_window_size == 15


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"point_number": 0}, r"parameters\.point_number: .*greater than or equal to 1, found 0"),
        ({"max_window_size": -2}, r"max_window_size: .*greater than 0, found -2"),
        ({"aspect_ratios": [20]}, r"aspect_ratios\.0: .*less than or equal to 10, found 20"),
        ({"quirks": ["Q2"]}, r"quirks\.0: .*'mirrored_boxes'.*found 'Q2'"),
        ({"template": "a picture"}, r"template: .*pattern.*found 'a picture'"),
        ({"point_nmber": 3}, "point_nmber: no such field; remove it or mend its name"),
        ({"objective": "exact"}, r"objective: .*'expected', 'gumbel' or 'reinforce'"),
    ],
)
def test_wrong_parameters_are_named(parameters, says):
    with pytest.raises(ValidationError) as caught:
        request(parameters=parameters)
    assert re.search(says, describe(caught.value)), describe(caught.value)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ({"target_prompt": ""}, "target_prompt"),
        ({"target_prompt": "  "}, "target_prompt is blank"),
        ({"target_prompt": "trees"}, "nothing to edit"),
    ],
)
def test_prompts_must_ask_for_something(prompts, says):
    with pytest.raises(ValidationError, match=says):
        request(**prompts)


def test_a_slash_in_a_prompt_is_harmless():
    assert request(target_prompt="a cat/dog").target_prompt == "a cat/dog"


def test_requests_travel_as_json():
    found = request(parameters={"quirks": ["corner_roi"], "aspect_ratios": [0.5, 1]})
    assert LearnableRegionsRequest.model_validate_json(found.model_dump_json()) == found
    assert LearnableRegionsParameters() == request().parameters
