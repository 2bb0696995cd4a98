import pytest
import torch

from farm.metrics.mse import mse
from tests.farm.metrics.networks import picture


def test_is_the_mean_of_squares_per_sample():
    first, second = picture(3, 3, 8, 9), picture(3, 3, 8, 9, seed=1)
    expected = torch.stack([
        torch.nn.functional.mse_loss(a.double(), b.double())
        for a, b in zip(first, second, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(mse(first, second), expected)


def test_a_mask_weighs_pixels_and_an_empty_one_gives_nan():
    first, second = torch.zeros(2, 3, 2, 2), torch.ones(2, 3, 2, 2)
    second[..., 0] = 0.5
    mask = torch.tensor([1.0, 0.5]).expand(2, 1, 2, 2).clone()
    mask[1] = 0
    found = mse(first, second, mask)
    assert found[0].item() == pytest.approx((0.25 + 0.5 * 1) / 1.5)
    assert found[1].isnan()


def test_gradient():
    first, second = (picture(2, 3, 4, 4, seed=s, dtype=torch.float64) for s in (0, 1))
    mask = picture(2, 1, 4, 4, seed=2, dtype=torch.float64)
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: mse(image, second, mask), first)
