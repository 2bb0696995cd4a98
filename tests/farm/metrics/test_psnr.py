import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio

from farm.metrics.psnr import MAX_PSNR, psnr

SEEDS = st.integers(0, 2**31)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("offset", "decibels"), [(0.1, 20), (0.01, 40), (1.0, 0), (-0.5, 6.0206)])
def test_constant_offsets(offset, decibels):
    image = torch.full((2, 3, 8, 8), 0.25, dtype=torch.float64)
    assert psnr(image, image + offset).tolist() == pytest.approx([decibels] * 2, abs=1e-4)


def test_is_torchmetrics_sample_by_sample():
    first, second = rand(4, 3, 16, 20), rand(4, 3, 16, 20, seed=1)
    second[2] = first[2] + 1e-3
    expected = [
        peak_signal_noise_ratio(b[None], a[None], data_range=1.0)
        for a, b in zip(first, second, strict=True)
    ]
    # torchmetrics works in float32.
    torch.testing.assert_close(
        psnr(first, second).float(), torch.stack(expected), rtol=1e-4, atol=0
    )


def test_is_capped_for_equal_images():
    image = rand(2, 3, 8, 8)
    assert psnr(image, image).tolist() == pytest.approx([MAX_PSNR] * 2)
    assert psnr(image, image + 1e-7).max().item() == pytest.approx(MAX_PSNR)


def test_a_mask_selects_pixels():
    first = torch.full((2, 3, 8, 8), 0.5)
    second = first.clone()
    second[:, :, :, :4] += 0.1
    second[:, :, :, 4:] += 0.01
    left = torch.zeros(2, 1, 8, 8)
    left[..., :4] = 1
    assert psnr(first, second, left).tolist() == pytest.approx([20, 20], abs=1e-4)
    assert psnr(first, second, 1 - left).tolist() == pytest.approx([40, 40], abs=1e-3)
    assert psnr(first, second, left.bool()).tolist() == psnr(first, second, left).tolist()
    assert psnr(first, second, left[:1]).tolist() == psnr(first, second, left).tolist()


@given(SEEDS)
@settings(deadline=None)
def test_masked_equals_the_plain_one_on_the_selected_pixels(seed):
    first, second = rand(1, 3, 9, 9, seed=seed), rand(1, 3, 9, 9, seed=seed + 1)
    mask = rand(1, 1, 9, 9, seed=seed + 2) < 0.5
    error = (first - second).double()[mask.expand_as(first)].square().mean()
    assert psnr(first, second, mask).item() == pytest.approx(-10 * math.log10(error))


@given(SEEDS)
@settings(deadline=None)
def test_is_symmetric_and_blind_outside_the_mask(seed):
    first, second = rand(1, 3, 9, 9, seed=seed), rand(1, 3, 9, 9, seed=seed + 1)
    mask = (rand(1, 1, 9, 9, seed=seed + 2) < 0.5).float()
    value = psnr(first, second, mask)
    assert torch.equal(value, psnr(second, first, mask))
    elsewhere = torch.where(mask > 0, second, rand(1, 3, 9, 9, seed=seed + 3))
    assert torch.equal(value, psnr(first, elsewhere, mask))


def test_without_pixels_there_is_no_psnr():
    mask = torch.zeros(2, 1, 4, 4)
    mask[1] = 1
    value = psnr(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4), mask)
    assert value[0].isnan()
    assert value[1] == 0


def test_gradient():
    first, second = (rand(2, 3, 4, 4, seed=s).double() for s in (0, 1))
    mask = rand(2, 1, 4, 4, seed=2).double()
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: psnr(image, second, mask), first)
