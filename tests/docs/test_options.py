"""docs/options.md is what the requests say, and they say something of everything."""

import pytest

from farm.requests import METHODS
from farm.requests.options import options_of, request_classes
from jobs.methods import options_page
from tests.docs.blocks import ROOT


def test_the_page_is_current():
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == options_page(), "write it anew: editfarm methods page > docs/options.md"


@pytest.mark.parametrize("method", METHODS)
def test_every_option_has_range_and_effect(method):
    assert set(request_classes()) == set(METHODS)
    for option in options_of(method):
        assert option.takes, option.name
        assert len(option.effect) > 10, f"{method}: {option.name} has no docstring"


def test_ranges_are_in_words():
    takes = {option.name: option.takes for option in options_of("style_diffusion")}
    assert takes["num_steps"] == "whole number 2 to 200"
    assert takes["learning_rate"] == "number above 0 to 1"
    assert takes["edit_type"] == "replace, refine"
    assert takes["equalizer"] == "by word: number -100 to 100"
    assert takes["source_words"] == "list of: text"
    assert takes["local_blend"] == "true, false"
