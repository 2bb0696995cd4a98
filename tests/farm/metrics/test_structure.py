import pytest
import torch

from farm.metrics.structure import joined_heads, self_similarity, structure_distance
from tests.farm.metrics.networks import picture


def test_is_the_cosine_of_every_pair():
    keys = picture(2, 5, 7, dtype=torch.float64) - 0.5
    expected = torch.stack([
        torch.stack([torch.cosine_similarity(sample, key[None], dim=1) for key in sample])
        for sample in keys
    ])  # fmt: skip
    torch.testing.assert_close(self_similarity(keys), expected)


def test_orthogonal_and_opposite_keys_have_closed_forms():
    """One token turned from parallel to opposite: two of four entries move from 1 to -1."""
    parallel = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    across = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert structure_distance(parallel, opposite).tolist() == [2.0]
    assert structure_distance(parallel, across).tolist() == [0.5]


def test_sees_neither_scale_nor_rotation():
    keys = picture(1, 6, 3, dtype=torch.float64) - 0.5
    turn, _ = torch.linalg.qr(picture(3, 3, seed=1, dtype=torch.float64))
    distance = structure_distance(keys, 3 * keys @ turn)
    assert distance.item() == pytest.approx(0, abs=1e-28)


def test_keys_of_zeros_are_similar_to_nothing():
    assert self_similarity(torch.zeros(1, 3, 4)).abs().max() == 0


def test_heads_lie_one_after_the_other():
    keys = picture(2, 3, 5, 4)
    joined = joined_heads(keys)
    assert joined.shape == (2, 5, 12)
    assert torch.equal(joined[1, 2, 4:8], keys[1, 1, 2])


def test_gradient():
    first, second = (picture(1, 4, 3, seed=s, dtype=torch.float64) - 0.5 for s in (0, 1))
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda keys: structure_distance(keys, second), first)
