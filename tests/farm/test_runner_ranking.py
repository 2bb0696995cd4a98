"""What ranks results of one edit: each figure alone, and all with their weights."""

import math

import pytest
import torch

from farm.regions import ImageScore
from farm.runner.ranking import (
    Standing,
    Weights,
    agreed_region,
    background_kept,
    ranked,
    reasons,
    standing,
    text_gain,
)

SOURCE = torch.full((3, 32, 32), 0.5)
WEIGHTS = Weights(text=1.0, background=0.5, structure=0.25)


def box(top: int, bottom: int) -> torch.Tensor:
    mask = torch.zeros(32, 32)
    mask[top:bottom] = 1
    return mask


def test_a_region_is_agreed_on_by_half_of_the_masks():
    region = agreed_region([box(0, 10), box(5, 20), box(8, 30)])
    assert torch.equal(region, box(5, 20))
    assert torch.equal(agreed_region([box(0, 4), box(8, 12)]), box(0, 4) + box(8, 12))


def test_background_is_what_lies_outside_alone():
    inside = torch.lerp(SOURCE, torch.ones(3, 32, 32), box(0, 10))
    assert background_kept(inside, SOURCE, box(0, 10)) == 1
    assert background_kept(SOURCE, SOURCE, box(0, 0)) == 1
    # 30 dB is half way from 15 to 45
    everywhere = SOURCE + 10 ** (-30 / 20)
    assert background_kept(everywhere, SOURCE, box(0, 10)) == pytest.approx(0.5, abs=1e-5)
    assert background_kept(1 - SOURCE * 0, SOURCE, box(0, 10)) == 0
    assert background_kept(everywhere, SOURCE, torch.ones(32, 32)) == 1, "nothing is outside"


def test_text_gain_is_how_far_the_picture_went_from_one_text_to_the_other():
    texts = (torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))
    between = torch.tensor([1.0, 1.0, 0])
    assert text_gain(texts[0], texts[0], texts) == 0
    assert text_gain(texts[1], texts[0], texts) == pytest.approx(2)
    assert text_gain(between, texts[0], texts) == pytest.approx(1)
    assert text_gain(texts[0], texts[1], texts) == pytest.approx(-2)


def test_a_standing_weighs_its_figures():
    texts = (torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
    tokens = torch.eye(4)
    source = ImageScore(texts[0], tokens)
    found = standing(ImageScore(texts[1], tokens), source, texts, 0.8, WEIGHTS)
    assert (found.text, found.background, found.structure) == (pytest.approx(2), 0.8, 1)
    assert found.score == pytest.approx(2 + 0.4 + 0.25)
    # every token like every other: 12 of 16 similarities went from 0 to 1
    flat = standing(ImageScore(texts[1], torch.ones(4, 4)), source, texts, 0.8, WEIGHTS)
    assert flat.structure == pytest.approx(1 - 12 / 16)


def test_the_order_and_its_reasons():
    standings = {
        "first": Standing(0.1, 1.0, 1.0, 0.5),
        "second": Standing(0.4, 0.2, 1.0, 0.7),
        "third": Standing(0.4, 0.2, 1.0, 0.7),
    }
    assert ranked(standings) == ["second", "third", "first"]
    over_third, over_first = reasons("second", standings)
    assert "no figure tells them apart" in over_third
    assert over_first == (
        "second before first by 0.200: agrees with the target prompt more (+0.300), "
        "keeps the background less (-0.800)"
    )
    assert not math.isnan(standings["first"].figures()["score"])
