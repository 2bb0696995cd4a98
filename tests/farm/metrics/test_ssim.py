import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.functional.image import structural_similarity_index_measure

from farm.metrics.ssim import ssim


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def noisy_pair():
    first = rand(3, 3, 32, 40)
    noise = rand(3, 3, 32, 40, seed=1) - 0.5
    amount = torch.tensor([0.05, 0.2, 0.8]).view(3, 1, 1, 1)
    return first, (first + amount * noise).clamp(0, 1)


def test_is_torchmetrics_sample_by_sample():
    first, second = noisy_pair()
    expected = [
        structural_similarity_index_measure(b[None], a[None], data_range=1.0)
        for a, b in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(ssim(first, second), torch.stack(expected))


def test_is_the_formula_of_wang_et_al():
    """From scipy's Gaussian, channel by channel, with the borders mirrored."""
    first, second = (image.double().numpy() for image in noisy_pair())

    def blur(values):
        return ndimage.gaussian_filter(values, sigma=1.5, radius=5, mode="mirror", axes=(-2, -1))

    mean_a, mean_b = blur(first), blur(second)
    var_a, var_b = blur(first**2) - mean_a**2, blur(second**2) - mean_b**2
    covariance = blur(first * second) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    ratio /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    result = ssim(*noisy_pair()).double().numpy()
    # Variances in float32 as differences of numbers near 1/3, against c2 = 9e-4.
    np.testing.assert_allclose(result, ratio.mean(axis=(1, 2, 3)), atol=1e-4)


def test_equal_images_have_one():
    image = rand(2, 3, 16, 16)
    torch.testing.assert_close(ssim(image, image), torch.ones(2))


def test_constants_have_the_closed_form():
    """No variance is left, so (2ab + c1) / (a² + b² + c1)."""
    a, b, c1 = 0.2, 0.6, 1e-4
    first, second = torch.full((1, 3, 16, 16), a), torch.full((1, 3, 16, 16), b)
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert ssim(first, second).item() == pytest.approx(expected, abs=1e-4)


def test_a_full_mask_changes_nothing_and_an_empty_one_gives_nan():
    first, second = noisy_pair()
    full = torch.ones(3, 1, 32, 40)
    torch.testing.assert_close(ssim(first, second, full), ssim(first, second))
    torch.testing.assert_close(ssim(first, second, full.bool()), ssim(first, second))
    assert ssim(first, second, torch.zeros(3, 1, 32, 40)).isnan().all()


def test_a_mask_is_blind_beyond_the_window():
    first = rand(1, 3, 24, 40)
    second = first.clone()
    second[..., 20:] = rand(1, 3, 24, 20, seed=1)
    mask = torch.zeros(1, 1, 24, 40)
    mask[..., :15] = 1  # five pixels short of what differs
    torch.testing.assert_close(ssim(first, second, mask), torch.ones(1))
    assert ssim(first, second, 1 - mask).item() < 0.5


def test_gradient():
    first, second = (rand(1, 1, 7, 7, seed=s).double() for s in (0, 1))
    mask = rand(1, 1, 7, 7, seed=2).double()
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: ssim(image, second, mask), first)
