"""Parameters in words, for pages and help: range and effect of each, whatever its type."""

import pytest

from farm.requests import METHODS
from farm.requests.options import options_of, request_classes

TAKES = {
    ("style_diffusion", "num_steps"): "whole number 2 to 200",
    ("style_diffusion", "learning_rate"): "number above 0 to 1",
    ("style_diffusion", "edit_type"): "replace, refine",
    ("style_diffusion", "blend_pool"): "1, 3, 5",
    ("style_diffusion", "tau_v"): "number 0 to 1 or list of: number 0 to 1",
    ("style_diffusion", "cross_windows"): "by word: number 0 to 1 or {begin, end}",
    ("style_diffusion", "equalizer"): "by word: number -100 to 100",
    ("style_diffusion", "source_words"): "list of: text",
    ("style_diffusion", "local_blend"): "true, false",
    ("learnable_regions", "aspect_ratios"): "list of: number 0.1 to 10",
    ("edit_infinity", "top_k"): "whole number from 0",
    ("edit_infinity", "lora_dropout"): "number from 0 below 1",
    ("edit_infinity", "infer_function"): "0, 1, 2",
    ("auto", "settings"): (
        "by style_diffusion, learnable_regions, edit_infinity: by word: anything"
    ),
}


@pytest.mark.parametrize(("method", "name"), TAKES)
def test_what_a_parameter_takes_is_in_words(method, name):
    takes = {option.name: option.takes for option in options_of(method)}
    assert takes[name] == TAKES[method, name]


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_says_what_it_takes_and_does(method):
    assert set(request_classes()) == set(METHODS)
    for option in options_of(method):
        assert option.takes, option.name
        assert len(option.effect) > 10, f"{method}: {option.name} has no docstring"
        assert "\n" not in option.effect
