import math

import pytest
import torch

from farm.images import fit_to_model
from farm.masks import Box
from farm.methods.learnable_regions.boxes import (
    cell_boxes,
    in_original,
    in_square,
    misfits,
    size_set,
    square_pixels,
)
from farm.methods.learnable_regions.config import AnchorConfig


def sizes_of(**fields):
    return size_set(AnchorConfig.model_validate(fields))


@pytest.mark.parametrize(("window", "count"), [(6.0, 2), (10.0, 4), (15.0, 6), (16.0, 7)])
def test_the_published_sets(window, count):
    """Spec §1.4: {4, 6, 8, … ≤ W}."""
    found = sizes_of(min_window_size=4.0, max_window_size=window, window_step=2.0)
    assert found.tolist() == [[4.0 + 2 * n] * 2 for n in range(count)]


def test_finer_sets_reach_their_end():
    found = sizes_of(min_window_size=0.1, max_window_size=0.4, window_step=0.1)
    assert found[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_other_ratios_keep_the_area():
    found = sizes_of(
        min_window_size=2.0, max_window_size=3.0, window_step=1.0, aspect_ratios=(1.0, 4.0, 0.25)
    )
    assert len(found) == 6
    areas = (2 * found[:, 0]) * (2 * found[:, 1])
    torch.testing.assert_close(areas, torch.tensor([16.0] * 3 + [36.0] * 3))
    torch.testing.assert_close(found[:3, 1] / found[:3, 0], torch.tensor([1.0, 4.0, 0.25]))


def test_a_box_is_around_the_middle_of_its_cell():
    """Row 2, column 13: top right, where the attention was."""
    boxes = cell_boxes(torch.tensor([[2, 13]]), torch.tensor([[1.0, 2.0]]), 16)
    assert boxes[0, 0].tolist() == [11.5, 1.5, 15.5, 3.5]


def test_boxes_end_with_the_grid():
    boxes = cell_boxes(torch.tensor([[0, 15]]), torch.tensor([[3.0, 3.0]]), 16)
    assert boxes[0, 0].tolist() == [12.5, 0, 16, 3.5]


def test_mirrored_boxes_are_boxes_of_mirrored_anchors():
    anchors, sizes = torch.tensor([[2, 13], [5, 5]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    for released in (True, False):
        found = cell_boxes(anchors, sizes, 16, released=released, mirrored=True)
        expected = cell_boxes(anchors.flip(1), sizes, 16, released=released)
        assert torch.equal(found, expected)


def test_released_pixels_are_the_integer_form():
    """Spec §1.4: p = -((-255 v) // 31), exact for every v."""
    values = torch.arange(32.0)
    found = square_pixels(values.repeat(4, 1).T, 32, 256, released=True)
    assert found[:, 0].tolist() == [-((-255 * v) // 31) for v in range(32)]


def test_an_unclipped_released_box_has_the_stated_side():
    """Spec §1.4: about 16.45 g pixels of 256."""
    for half in (4.0, 6.0, 8.0):
        cells = cell_boxes(
            torch.tensor([[16, 15]]), torch.tensor([[half, half]]), 32, released=True
        )
        left, top, right, bottom = square_pixels(cells, 32, 256, released=True)[0, 0].tolist()
        assert right - left == pytest.approx(16.45 * half, abs=1)
        assert bottom - top == pytest.approx(16.45 * half, abs=1)


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 60), (60, 100), (1000, 3000)])
def test_there_and_back(height, width, mode):
    """A box of the original in the square, and that one in the original: the same box."""
    _, placement = fit_to_model(torch.zeros(3, height, width), 64, mode=mode)
    seen = placement.seen
    box = Box(
        seen.left + seen.width // 4,
        seen.top + seen.height // 3,
        seen.left + seen.width // 2,
        seen.top + seen.height - 5,
    )
    pixels = torch.tensor([in_square(box, placement)])
    (found,) = in_original(pixels, placement)
    assert found == box


def test_what_lies_in_the_padding_is_cut_off():
    _, placement = fit_to_model(torch.zeros(3, 50, 100), 64, mode="pad")
    whole, above = in_original(
        torch.tensor([[0.0, 0.0, 64.0, 64.0], [10.0, 0.0, 20.0, 5.0]]), placement
    )
    assert whole == Box(0, 0, 100, 50)
    assert above.bottom - above.top == 1  # never empty


def test_fractions_are_rounded_outwards():
    _, placement = fit_to_model(torch.zeros(3, 64, 64), 64)
    assert in_original(torch.tensor([[3.2, 4.0, 9.1, 9.9]]), placement) == [Box(3, 4, 10, 10)]
    assert math.isclose(in_square(Box(3, 4, 10, 10), placement)[0], 3)


def test_the_misfit_of_a_region_is_one_minus_its_overlap_with_what_is_salient():
    saliency = torch.zeros(8, 8)
    saliency[2:6, 1:5] = 1.0
    same, beside, wider = [1.0, 2.0, 5.0, 6.0], [5.0, 6.0, 8.0, 8.0], [0.0, 2.0, 5.0, 6.0]
    shifted = [1.5, 2.0, 5.5, 6.0]  # half a column less, and half a column beside it
    found = misfits(torch.tensor([[same, beside], [wider, shifted]]), saliency)
    expected = [[0.0, 1.0], [1 - 16 / 20, 1 - 14 / 18]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_of_regions_of_one_size_the_salient_one_has_the_least_misfit():
    yy, xx = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    saliency = torch.exp(-((yy - 3) ** 2 + (xx - 5) ** 2) / 4)
    anchors = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    found = misfits(cell_boxes(anchors, torch.tensor([[2.0, 2.0]]), 8)[:, 0], saliency)
    assert anchors[found.argmin()].tolist() == [3, 5]
