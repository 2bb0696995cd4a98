"""One contract for all doors: what is taken, and what a wrong field is answered with."""

import json

import pytest

from farm.errors import InvalidRequestError
from farm.requests import GENERATED, METHODS, parse_request
from farm.requests.parsing import near_names

FIELDS = {"image": "a.png", "source_prompt": "a red ball", "target_prompt": "a blue ball"}


@pytest.mark.parametrize("form", [dict, json.dumps, lambda fields: json.dumps(fields).encode()])
def test_text_bytes_and_mappings_are_the_same_request(form):
    assert parse_request(form({**FIELDS, "seed": 3})) == parse_request({**FIELDS, "seed": 3})


@pytest.mark.parametrize("method", METHODS)
def test_the_method_tells_which_request_it_is(method):
    request = parse_request({**FIELDS, "method": method})
    assert request.method == method
    assert parse_request(request.model_dump()) == request


@pytest.mark.parametrize("method", METHODS)
def test_whoever_asks_of_any_request_for_its_mask_and_its_source_is_answered(method):
    request = parse_request({**FIELDS, "method": method})
    assert request.drawn_mask is None
    assert not request.is_generated


def test_a_mask_and_a_source_to_draw_are_said_by_the_requests_that_have_them():
    masked = parse_request({**FIELDS, "method": "edit_infinity", "mask": "m.png"})
    assert masked.drawn_mask == "m.png"
    assert parse_request({**FIELDS, "image": GENERATED}).is_generated


def test_without_a_method_it_is_the_default():
    assert parse_request(FIELDS).method == "style_diffusion"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sed": 3}, "sed: no such field; did you mean seed?"),
        ({"colour": "red"}, "colour: no such field; remove it or mend its name"),
        ({"parameters": {"tau": 1}}, "parameters.tau: no such field; did you mean tau_v or tau_u?"),
        ({"tau_c": 0.4}, "tau_c: no such field; did you mean parameters.tau_c?"),
        (
            {"parameters": {"tau_c": {"begin": 0, "until": 1}}},
            "until: no such field; remove it or mend its name",
        ),
        ({"method": "style_difusion"}, "found 'style_difusion'; did you mean style_diffusion?"),
        ({"method": "magic"}, "method: no such method; there are style_diffusion, learnable_"),
        ({"method": 7}, "there are style_diffusion, learnable_regions, edit_infinity, auto, found"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, found -1"),
        ({"seed": 2**32}, "seed: Input should be less than 4294967296, found 4294967296"),
        ({"source_prompt": "  "}, "source_prompt is blank: describe the picture in words"),
        ({"target_prompt": "a  red ball"}, "so there is nothing to edit"),
        ({"id": "../up"}, "id: String should match pattern"),
        ({"image": None}, "image: Input should be a valid string, found None"),
    ],
)
def test_a_wrong_field_is_named_with_what_to_change(change, says):
    with pytest.raises(InvalidRequestError) as caught:
        parse_request({**FIELDS, **change})
    assert says in caught.value.message


def test_a_missing_field_is_named_and_all_complaints_come_at_once():
    with pytest.raises(InvalidRequestError) as caught:
        parse_request({"image": "a.png", "target_prompt": "a ball", "seed": "x"})
    first, second = caught.value.message.split("; ")
    assert first == "source_prompt: Field required"
    assert second.startswith("seed: Input should be a valid integer")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"image": ', "not JSON (Expecting value at column 11): one JSON object is expected"),
        ("[1, 2]", "request: "),
        ("7", "request: "),
    ],
)
def test_what_is_no_request_at_all_is_said(text, says):
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(text)
    assert says in caught.value.message


def test_near_names_are_those_that_somebody_may_have_meant():
    assert near_names("tau", ["tau_v", "seed"]) == "tau_v"
    assert near_names("qwerty", ["tau_v", "seed"]) == ""
