import math

import pytest
import torch

from farm.errors import InvalidPromptError
from farm.losses.clip import clip_loss, directional_loss, text_direction, text_similarity

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_clip_loss_is_one_minus_the_mean_cosine():
    views = torch.stack([3 * EAST, -EAST, NORTH, EAST + NORTH])
    expected = 1 - (1 - 1 + 0 + math.sqrt(0.5)) / 4
    assert clip_loss(views, 5 * EAST).item() == pytest.approx(expected, abs=1e-6)
    both = clip_loss(torch.stack([views, -views]), EAST)
    assert both.tolist() == pytest.approx([expected, 2 - expected], abs=1e-6)


def test_directional_loss_compares_moves_view_by_view():
    source = torch.stack([NORTH, EAST])
    along = source + 2 * EAST
    assert directional_loss(along, source, EAST).item() == pytest.approx(0, abs=1e-6)
    assert directional_loss(along, source, -EAST).item() == pytest.approx(2, abs=1e-6)
    assert directional_loss(along, source, NORTH).item() == pytest.approx(1, abs=1e-6)
    one_wrong = torch.stack([along[0], source[1] - EAST])
    assert directional_loss(one_wrong, source, EAST).item() == pytest.approx(1, abs=1e-6)


def test_a_picture_that_did_not_move_is_neither_good_nor_bad():
    source = torch.stack([NORTH, EAST])
    assert directional_loss(source, source, EAST).item() == 1


@pytest.mark.parametrize("loss", ["clip", "directional"])
def test_gradients_match_finite_differences(loss):
    views, source, text = normal(2, 3, 4), normal(3, 4, seed=1), normal(4, seed=2)
    views.requires_grad_()
    functions = {
        "clip": lambda v: clip_loss(v, text),
        "directional": lambda v: directional_loss(v, source, text),
    }
    assert torch.autograd.gradcheck(functions[loss], (views,))


def test_descending_the_clip_loss_turns_a_view_to_the_text():
    text, view = normal(8), normal(1, 8, seed=3).requires_grad_()
    before = clip_loss(view, text)
    (gradient,) = torch.autograd.grad(before, view)
    assert clip_loss(view - 0.5 * gradient, text) < before


def test_prompts_that_mean_the_same_are_refused():
    text = normal(8).float()
    with pytest.raises(InvalidPromptError, match=r"mean the same to CLIP.*words that the model"):
        text_direction(text, text * (1 + 1e-6))
    torch.testing.assert_close(text_direction(text, 2 * text), text)


def test_similarity_needs_no_unit_length():
    assert text_similarity(7 * EAST, EAST + NORTH).item() == pytest.approx(math.sqrt(0.5))
