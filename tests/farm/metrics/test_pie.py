import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from farm.errors import InvalidRequestError
from farm.metrics.pie import last_square, region_distance, region_mse, region_psnr, region_ssim
from farm.metrics.pie_columns import mean_of_known
from farm.metrics.pie_masks import decode_runs, weight_of
from farm.metrics.psnr import psnr
from tests.farm.metrics.networks import picture
from tests.tiny import tiny_autoencoder

MEASURES = [region_mse, region_psnr, region_ssim]
HEIGHT, WIDTH = 9, 7
RUNS = st.lists(st.tuples(st.integers(0, HEIGHT * WIDTH - 1), st.integers(0, 80)), max_size=6)


def half_mask() -> torch.Tensor:
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., :12] = 1
    return mask


@given(RUNS)
@settings(deadline=None, max_examples=40)
def test_runs_are_pixels_of_the_rows_one_after_the_other(runs):
    flat = np.zeros(HEIGHT * WIDTH)
    for start, length in runs:
        flat[start : start + length] = 1
    mask = decode_runs([n for run in runs for n in run], height=HEIGHT, width=WIDTH, border=False)
    np.testing.assert_array_equal(mask[0].numpy(), flat.reshape(HEIGHT, WIDTH))


def test_the_border_is_forced_to_be_edited():
    mask = decode_runs([], height=5, width=4)[0]
    assert mask.tolist() == [[1] * 4, *[[1, 0, 0, 1]] * 3, [1] * 4]
    assert decode_runs([], height=5, width=4, border=False).sum() == 0
    assert decode_runs([262_100, 500]).sum() == 4 * 512 - 4  # cut off in the last row


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([3], "found 1 numbers"),
        ([-1, 2], "a run of 2 from -1"),
        ([35, 1], "from 35"),
        ([0, -3], "-3"),
    ],
)
def test_broken_runs_are_refused(runs, says):
    with pytest.raises(InvalidRequestError, match=says):
        decode_runs(runs, height=5, width=7)


def test_released_averages_over_the_frame_and_corrected_over_the_region():
    """An error of 0.2 in half of the unedited half."""
    mask, source = half_mask(), torch.full((1, 3, 24, 24), 0.5)
    edited = source.clone()
    edited[..., 18:] += 0.2
    edited[..., :12] = 0  # inside the edited region: counts in neither
    weight = weight_of(mask, "unedited")
    corrected = region_mse(source, edited, weight, "corrected").item()
    assert corrected == pytest.approx(0.02, rel=1e-5)
    assert region_mse(source, edited, weight, "released").item() == pytest.approx(corrected / 2)
    difference = region_psnr(source, edited, weight, "released") - region_psnr(
        source, edited, weight, "corrected"
    )
    assert difference.item() == pytest.approx(10 * math.log10(2))


@pytest.mark.parametrize("measure", MEASURES)
def test_whole_is_the_whole_picture(measure):
    source, edited = picture(2, 3, 24, 24), picture(2, 3, 24, 24, seed=1)
    whole = weight_of(half_mask().expand(2, 1, 24, 24), "whole")
    released, corrected = (measure(source, edited, whole, c) for c in ("released", "corrected"))
    if measure is not region_ssim:  # its border is dropped in one of them
        torch.testing.assert_close(released, corrected)
    if measure is region_psnr:
        torch.testing.assert_close(released, psnr(source, edited))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("convention", ["released", "corrected"])
def test_an_empty_region_has_no_value(measure, convention):
    mask = torch.ones(2, 1, 24, 24)
    mask[1, ..., 6:18] = 0
    source, edited = picture(2, 3, 24, 24), picture(2, 3, 24, 24, seed=1)
    found = measure(source, edited, weight_of(mask, "unedited"), convention)
    assert found[0].isnan()
    assert found[1].isfinite()


def test_released_ssim_drops_the_border_of_five_pixels():
    """From scipy's Gaussian on the blackened pictures; only inner pixels count."""
    source, edited = picture(1, 3, 24, 24), picture(1, 3, 24, 24, seed=1)
    weight = weight_of(half_mask(), "unedited")
    first, second = ((p * weight)[0].double().numpy() for p in (source, edited))

    def blur(values):
        return ndimage.gaussian_filter(values, sigma=1.5, radius=5, axes=(1, 2))[:, 5:-5, 5:-5]

    mean_a, mean_b = blur(first), blur(second)
    cross = blur(first * second) - mean_a * mean_b
    spread = blur(first**2) - mean_a**2 + blur(second**2) - mean_b**2
    ratio = (2 * mean_a * mean_b + 1e-4) * (2 * cross + 9e-4)
    ratio /= (mean_a**2 + mean_b**2 + 1e-4) * (spread + 9e-4)
    found = region_ssim(source, edited, weight, "released").item()
    assert found == pytest.approx(ratio.mean(), abs=1e-4)  # float32, see test_ssim


def test_distance_of_a_region():
    distance = autoencoder_distance_of_tiny()
    source, edited = picture(2, 3, 24, 24), picture(2, 3, 24, 24, seed=1)
    mask = half_mask().expand(2, 1, 24, 24).clone()
    mask[1] = 1
    weight = weight_of(mask, "unedited")
    released = region_distance(source, edited, weight, distance, "released")
    expected = distance((source * weight)[:1], (edited * weight)[:1])[0].item()
    assert released[0].item() == pytest.approx(expected, rel=1e-5)
    corrected = region_distance(source, edited, weight, distance, "corrected")
    changed = source.clone()
    changed[..., 12:] = edited[..., 12:]
    expected = 2 * distance(source[:1], changed[:1])[0].item()
    assert corrected[0].item() == pytest.approx(expected, rel=1e-5)
    assert released[1].isnan()
    assert corrected[1].isnan()
    # what happens inside the mask alone is invisible to both
    inside = torch.where(half_mask() > 0, edited, source)
    for convention in ("released", "corrected"):
        found = region_distance(source[:1], inside[:1], weight[:1], distance, convention)
        assert found.item() == pytest.approx(0, abs=1e-7)


def autoencoder_distance_of_tiny():
    from farm.metrics.perceptual import autoencoder_distance

    return autoencoder_distance(tiny_autoencoder().vae, name="tiny")


def test_the_last_square_of_a_strip_is_measured():
    strip = picture(3, 12, 40)
    assert torch.equal(last_square(strip, 10), strip[:, 2:, 30:])
    with pytest.raises(InvalidRequestError, match="found 40x12 pixels, expected at least 20x20"):
        last_square(strip, 20)


def test_means_leave_out_what_has_no_value():
    assert mean_of_known([1.0, math.nan, 3.0]) == 2.0
    assert math.isnan(mean_of_known([math.nan]))
    assert math.isnan(mean_of_known([]))
