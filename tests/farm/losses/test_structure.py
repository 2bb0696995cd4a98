import pytest
import torch

from farm.losses.structure import self_similarity, structure_loss


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_self_similarity_is_cosines():
    tokens = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    expected = torch.tensor([[1.0, 0, -1], [0, 1, 0], [-1, 0, 1]])
    torch.testing.assert_close(self_similarity(tokens), expected)


def test_a_token_of_nothing_is_like_nothing():
    tokens = torch.stack([torch.zeros(3), torch.ones(3)])
    torch.testing.assert_close(self_similarity(tokens), torch.tensor([[0.0, 0], [0, 1]]))


def test_structure_is_what_scaling_and_turning_leave():
    """A picture in other colours: tokens are turned as one and grow, likenesses stay."""
    tokens = normal(5, 4)
    rotation = torch.linalg.qr(normal(4, 4, seed=1)).Q
    assert structure_loss(3 * tokens @ rotation, tokens).item() == pytest.approx(0, abs=1e-12)


def test_value():
    source = torch.eye(2)
    edited = torch.ones(2, 2)
    assert structure_loss(edited, source).item() == pytest.approx(0.5)  # two of four differ by 1
    both = structure_loss(torch.stack([edited, source]), source)
    assert both.tolist() == pytest.approx([0.5, 0])


def test_gradient_matches_finite_differences():
    source, edited = normal(4, 3), normal(2, 4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda e: structure_loss(e, source), (edited,))
