"""What a request of StyleDiffusion may say, and what it is answered when it says too much."""

import pytest

from farm.errors import InvalidRequestError
from farm.requests import GENERATED, Interval, parse_request
from farm.requests.style_diffusion import MAX_CELLS

FIELDS = {"image": "a.png", "source_prompt": "a red cat", "target_prompt": "a blue cat"}


def parsed(**parameters):
    return parse_request({**FIELDS, "parameters": parameters}).parameters


def refused(**fields):
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(FIELDS | fields)
    return caught.value.message


def test_a_tau_is_a_share_a_window_or_several_of_them():
    found = parsed(
        tau_v=[0.2, 0.5],
        tau_c=0.6,
        tau_s={"begin": 0.1, "end": 0.5},
        tau_u=[0, {"end": 1}],
    )
    assert found.tau_v == (0.2, 0.5)
    assert found.tau_c == 0.6
    assert found.tau_s == Interval(begin=0.1, end=0.5)
    assert found.tau_u == (0, Interval(begin=0, end=1))
    assert found.num_cells == 4


@pytest.mark.parametrize("name", ["tau_v", "tau_c", "tau_s", "tau_u"])
@pytest.mark.parametrize("value", [1.5, -0.1, [0.5, 2]])
def test_a_share_outside_its_range_is_said_in_one_sentence(name, value):
    bad = value[-1] if isinstance(value, list) else value
    message = refused(parameters={name: value})
    assert message == (f"parameters.{name}: {bad:g} is outside 0 to 1: it is a share of all steps")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"tau_c": {"begin": 0.5, "end": 1.5}}, "tau_c: 1.5 is outside 0 to 1"),
        ({"tau_c": {"begin": 0.5, "end": 0.2}}, "begins at 0.5 and ends at 0.2"),
        ({"tau_c": []}, "tau_c: an empty list"),
        ({"tau_c": "most"}, "tau_c"),
        ({"tau_v": {"end": 0.5}}, "tau_v"),
        ({"cross_windows": {"cat": 3}}, "cross_windows.cat: 3 is outside 0 to 1"),
        ({"tau_v": "much"}, "tau_v: found 'much', expected a number from 0 to 1"),
        ({"tau_s": [0.5, None]}, "tau_s: found None, expected a number from 0 to 1"),
        ({"tau_s": {"begin": "x", "end": 1}}, "tau_s: found 'x', expected a number from 0 to 1"),
        ({"equalizer": {"cat": 1000}}, "equalizer.cat"),
        ({"edit_type": "Replacement"}, "'replace' or 'refine'"),
        ({"learned": "null_text", "inner_steps": 5}, "inner_steps is about learned values"),
        ({"learned": "nothing", "training": "forced"}, "training is about learned values"),
        ({"local_blend": False, "source_subtract": ["cat"]}, "local_blend is false"),
        ({"further_targets": [{"target_prompt": ""}]}, "further_targets.0.target_prompt"),
        ({"further_targets": [{"prompt": "a"}]}, "further_targets.0.prompt: no such field"),
    ],
)
def test_what_cannot_be_meant_is_answered_with_what_to_change(parameters, says):
    assert says in refused(parameters=parameters)


def test_a_grid_has_an_end():
    taus = [n / 10 for n in range(9)]
    assert parsed(tau_c=taus[:8], tau_s=taus[:8]).num_cells == MAX_CELLS
    assert (
        f"72 edits in one request (1 targets times the combinations of taus), at most {MAX_CELLS}"
        in (refused(parameters={"tau_c": taus, "tau_s": taus[:8]}))
    )


def test_weighing_words_of_one_prompt_is_an_edit():
    same = {"target_prompt": FIELDS["source_prompt"]}
    assert "nothing to edit" in refused(**same)
    weighed = parse_request({**FIELDS, **same, "parameters": {"equalizer": {"red": 3}}})
    assert weighed.parameters.equalizer == {"red": 3}
    blank = {"source_prompt": " ", "target_prompt": "  ", "parameters": {"equalizer": {"red": 3}}}
    assert "source_prompt is blank" in refused(**blank)


def test_a_generated_source_has_nothing_to_learn():
    assert parse_request(FIELDS | {"image": GENERATED}).is_generated
    assert not parse_request(FIELDS).is_generated
    message = refused(image=GENERATED, parameters={"learned": "null_text"})
    assert "a generated source is known already" in message


def test_json_and_back_it_is_the_same_request():
    request = parse_request(
        {
            **FIELDS,
            "parameters": {
                "tau_c": [0.1, {"begin": 0.2, "end": 0.3}],
                "cross_windows": {"blue": {"end": 0.5}},
                "further_targets": [{"target_prompt": "a dog", "equalizer": {"dog": 2}}],
            },
        }
    )
    assert parse_request(request.model_dump_json()) == request
