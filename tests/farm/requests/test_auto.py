"""Requests that leave the choice to the farm."""

import pytest

from farm.errors import InvalidRequestError
from farm.requests import AutoRequest, parse_request

FIELDS = {"image": "a.png", "source_prompt": "a red ball", "target_prompt": "a blue ball"}


def asked(**parameters) -> AutoRequest:
    request = parse_request({**FIELDS, "method": "auto", "parameters": parameters})
    assert isinstance(request, AutoRequest)
    return request


def test_what_is_left_out_is_all_there_is_tried_cheaply():
    parameters = asked().parameters
    assert (parameters.methods, parameters.effort, parameters.settings) == (None, "cheap", {})


def test_settings_of_single_methods_are_kept_for_their_own_requests_to_check():
    settings = {"style_diffusion": {"tau_c": 0.4, "whatever": 1}}
    assert asked(settings=settings).parameters.settings == settings


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"methods": []}, "name each method to choose from once, or leave it out"),
        ({"methods": ["edit_infinity"] * 2}, "name each method to choose from once"),
        ({"methods": ["auto"]}, "found 'auto'"),
        ({"effort": "some"}, "'cheap' or 'full'"),
        ({"settings": {"magic": {}}}, "style_diffusion"),
        ({"text_weight": -1}, "greater than or equal to 0"),
        ({"weight": 1}, "no such field; did you mean text_weight"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters, says):
    with pytest.raises(InvalidRequestError) as caught:
        asked(**parameters)
    assert says in caught.value.message
