import pytest
import torch

from farm.methods.learnable_regions.config import SelectionConfig
from farm.methods.learnable_regions.selection import choose, final_scores

OURS, RELEASED = SelectionConfig(), SelectionConfig(rule="released")


def test_text_counts_twice():
    text, image = torch.tensor([0.3, 0.2, 0.25]), torch.tensor([0.5, 0.8, 0.65])
    torch.testing.assert_close(final_scores(text, image, OURS), torch.tensor([1.1, 1.2, 1.15]))
    assert choose(text, image, OURS) == 1
    assert choose(text, image, SelectionConfig(test_alpha=5.0)) == 0


def test_the_verdict_is_added_with_its_weight():
    text, image = torch.tensor([0.3, 0.3]), torch.tensor([0.5, 0.5])
    verdict = torch.tensor([-0.1, 0.2])
    config = SelectionConfig(test_gamma=3.0)
    found = final_scores(text, image, config, verdict)
    torch.testing.assert_close(found, torch.tensor([0.8, 1.7]))
    assert choose(text, image, config, verdict) == 1
    assert choose(text, image, config) == 0  # nobody was asked
    assert choose(text, image, SelectionConfig(test_gamma=0.0), verdict) == 0


def test_the_first_of_equals_wins():
    assert choose(torch.ones(3), torch.ones(3), OURS) == 0
    assert choose(torch.ones(5), torch.ones(5), RELEASED) == 0


def test_released_scores_are_of_softmaxes():
    text, image = torch.tensor([0.3, 0.2]), torch.tensor([0.5, 0.8])
    expected = 2 * text.exp() / text.exp().sum() + image.exp() / image.exp().sum()
    torch.testing.assert_close(final_scores(text, image, RELEASED), expected)


def test_as_released_the_winner_is_among_the_three_nearest_to_the_text():
    text, image = torch.tensor([0.30, 0.29, 0.28, 0.1]), torch.tensor([0.1, 0.2, 3.0, 5.0])
    assert choose(text, image, OURS) == 3
    assert choose(text, image, RELEASED) == 2


@pytest.mark.parametrize("config", [OURS, RELEASED])
def test_a_single_picture_wins(config):
    assert choose(torch.tensor([0.1]), torch.tensor([0.2]), config) == 0
