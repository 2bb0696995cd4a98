import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from farm.methods.learnable_regions.extent import hanging_together, thing_extent

EVERYWHERE = torch.ones(6, 6, dtype=torch.bool)


def picture(*blocks):
    """Features of 6 x 6 cells: rows, columns and a value in both channels for each block."""
    found = torch.tensor([1.0, 0.0])[:, None, None].repeat(1, 6, 6)
    for rows, columns, value in blocks:
        found[:, rows, columns] = torch.tensor(value)[:, None, None]
    return found


def peak_at(row, column, spread=1.0):
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    return torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * spread**2))


THING = slice(1, 4), slice(0, 4)


def test_it_reaches_to_the_thing_s_border_where_saliency_is_in_its_middle():
    found = thing_extent(picture((*THING, (0.0, 1.0))), peak_at(2, 2), EVERYWHERE)
    wanted = torch.zeros(6, 6)
    wanted[THING] = 1
    torch.testing.assert_close(found, wanted)


def test_it_is_the_box_about_a_thing_that_is_none():
    cross = (
        (slice(1, 5), slice(2, 3), (0.0, 1.0)),
        (slice(3, 4), slice(0, 5), (0.0, 1.0)),
    )
    found = thing_extent(picture(*cross), peak_at(3, 2), EVERYWHERE)
    wanted = torch.zeros(6, 6)
    wanted[1:5, 0:5] = 1
    torch.testing.assert_close(found, wanted)


def test_of_two_things_it_is_the_salient_one():
    # around their mean, the three are at the corners of a triangle
    other = slice(5, 6), slice(5, 6)
    features = picture((*THING, (0.0, 1.0)), (*other, (-1.0, 0.0)))
    found = thing_extent(features, peak_at(2, 2), EVERYWHERE)
    assert (found[THING] > 0.95).all()
    assert found[other] < 0.6
    assert thing_extent(features, peak_at(5, 5, 0.5), EVERYWHERE)[other] > 0.95


def test_of_two_that_are_alike_it_is_the_salient_one():
    """No box about both; and none where the other's own saliency is below any likeness."""
    other = slice(5, 6), slice(5, 6)
    features = picture((*THING, (0.0, 1.0)), (*other, (0.0, 1.0)))
    found = thing_extent(features, peak_at(2, 2), EVERYWHERE)
    assert (found[THING] > 0.95).all()
    assert found[other] < 0.01
    assert found[4:].max() < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_what_hangs_together_is_what_scipy_finds_level_by_level(seed):
    generator = torch.Generator().manual_seed(seed)
    image, marker = (torch.randint(0, 6, (2, 9, 12), generator=generator) / 5).unbind(0)
    marker = marker * (torch.rand(9, 12, generator=generator) < 0.1)
    found = hanging_together(image, marker).numpy()
    for level in (0.2, 0.4, 0.6, 0.8, 1.0):
        mask = image.numpy() >= level - 0.1
        start = mask & (marker.numpy() >= level - 0.1)
        expected = ndimage.binary_propagation(start, mask=mask)
        np.testing.assert_array_equal(found >= level - 0.1, expected)


def test_what_is_half_alike_counts_for_its_power():
    # unit vectors around a mean of zero, 0, 60, 180 and 240 degrees from the seed
    angles = torch.tensor([[0.0, 60.0, 180.0, 240.0]]).deg2rad()
    saliency = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    seen = torch.ones(1, 4, dtype=torch.bool)
    found = thing_extent(torch.stack([angles.cos(), angles.sin()]), saliency, seen)
    torch.testing.assert_close(found, torch.tensor([[1.0, math.sqrt(0.5) / 2, 0.0, 0.0]]))


def test_padding_neither_counts_nor_has_a_say():
    features = picture((*THING, (0.0, 1.0)))
    seen = EVERYWHERE.clone()
    seen[:, 4:] = False
    found = thing_extent(features, peak_at(2, 2), seen)
    changed = features.clone()
    changed[:, :, 4:] = 7.0
    torch.testing.assert_close(thing_extent(changed, peak_at(2, 2), seen), found)
    assert (found[:, 4:] == 0).all()


@pytest.mark.parametrize("saliency", [peak_at(2, 2), torch.zeros(6, 6)])
def test_where_all_is_alike_there_is_no_thing(saliency):
    assert (thing_extent(picture(), saliency, EVERYWHERE) == 0).all()
