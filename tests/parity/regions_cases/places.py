"""Where the picture is looked at, and the boxes around it: DINO, anchors, sizes, masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from farm.images import Window
from farm.masks import Box, boxes_to_masks
from farm.methods.learnable_regions.anchors import cumulative_mass
from farm.methods.learnable_regions.boxes import cell_boxes, size_set
from farm.methods.learnable_regions.canvas import Hole, cut_out
from farm.methods.learnable_regions.config import reference
from tests.parity.regions_cases.common import checks, chosen_sizes, close, window_of
from tests.parity.regions_set import GoldenSet


@checks("image_u8")
def images(golden: GoldenSet, array: str) -> None:
    """What goes in: their features are compared below; both matter to them."""
    assert golden.array(array).shape[-1] == 3
    first, second = golden.features.tokens[:2]
    assert not torch.allclose(first, second, atol=0.1)


@checks("dino_tokens_img0")
def dino_tokens(golden: GoldenSet, array: str) -> None:
    close(golden.features.tokens[0], golden.array(array))


@checks("attn_cls_heads")
def attention_of_heads(golden: GoldenSet, array: str) -> None:
    close(golden.features.attention, golden.array(array))


@checks("attn_mean")
def mean_attention(golden: GoldenSet, array: str) -> None:
    close(golden.attention.flatten(1), golden.array(array))


@checks("feat12")
def projected(golden: GoldenSet, array: str) -> None:
    close(golden.projected, golden.array(array))


@checks("th_attn_(dino|syn)")
def cumulative_maps(golden: GoldenSet, array: str, source: str) -> None:
    found = torch.stack([cumulative_mass(one) for one in scores_of(golden, source)])
    close(found, golden.array(array))


@checks("attn_syn")
def synthetic_maps(golden: GoldenSet, array: str) -> None:
    """What goes in: cells keep their order in the cumulative map, ties aside."""
    for one in golden.array(array):
        mass = cumulative_mass(one).flatten()
        values, order = one.flatten().sort()
        assert (mass[order].diff()[values.diff() > 0] >= 0).all()


@checks(r"points_(dino|syn)_w(\d+)_p(\d+)")
def anchors(golden: GoldenSet, array: str, source: str, window: str, count: str) -> None:
    found = golden.anchor_points(scores_of(golden, source), int(count), int(window))
    assert torch.equal(found, golden.array(array))


def scores_of(golden: GoldenSet, source: str) -> Tensor:
    """The stored maps: cells that differ by less than rounding must be ordered as there."""
    if source == "syn":
        return golden.array("attn_syn")
    return golden.array("attn_mean").unflatten(1, (golden.grid, golden.grid))


@checks(r"points_w(\d+)")
def anchors_in_use(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(window_of(golden, int(window)).points, golden.array(array))


@checks(r"bbox_cells_all_w(\d+)")
def all_boxes_in_cells(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(window_of(golden, int(window)).cells.flatten(0, 1), golden.array(array))


@checks(r"bbox_px_all_w(\d+)")
def all_boxes_in_pixels(golden: GoldenSet, array: str, window: str) -> None:
    found = golden.pixels(window_of(golden, int(window)).cells).flatten(0, 1)
    assert torch.equal(found.long(), golden.array(array))


@checks(r"bbox_cells_w(\d+)")
def chosen_boxes_in_cells(golden: GoldenSet, array: str, window: str) -> None:
    assert torch.equal(chosen_cells(golden, int(window)), golden.array(array))


@checks(r"bbox_px_w(\d+)")
def chosen_boxes_in_pixels(golden: GoldenSet, array: str, window: str) -> None:
    found = golden.pixels(chosen_cells(golden, int(window)))
    assert torch.equal(found.long(), golden.array(array))


def chosen_cells(golden: GoldenSet, window: int) -> Tensor:
    found = window_of(golden, window)
    choice = chosen_sizes(golden, window)
    return found.cells.flatten(0, 1)[torch.arange(len(choice)), choice]


@checks(r"mask(256|512|64)_bits_w(\d+)")
def masks(golden: GoldenSet, array: str, size: str, window: str) -> None:
    """Twice as large by bilinear resizing and a threshold; then every eighth pixel (spec §1.8)."""
    pixels = golden.pixels(chosen_cells(golden, int(window)))
    side = golden.image_size
    mask = boxes_to_masks(pixels, side, side)
    if int(size) != side:
        mask = F.interpolate(mask, scale_factor=2, mode="bilinear")
        levels = golden.values["anchor"][window]["mask512_raw_levels"]
        assert mask.unique().tolist() == levels
        mask = (mask >= 0.5).float()
        assert golden.values["anchor"][window]["mask512_equals_nearest2x"]
    if int(size) < side:
        mask = F.interpolate(mask, (int(size), int(size)), mode="nearest")
    found = np.packbits(mask[:, 0].bool().numpy(), axis=-1)
    assert np.array_equal(found, golden.arrays[array])
    if int(size) != 2 * side:
        return
    # the farm's own hole, on the picture at the size that the UNet sees
    double, eighth = 2 * side, f"mask{side // 4}_bits_w{window}"
    holes = [hole_of(box, double) for box in (2 * pixels.long()).tolist()]
    drawn = np.packbits(torch.stack([h.mask[0] > 0.5 for h in holes]).numpy(), axis=-1)
    assert np.array_equal(drawn, golden.arrays[eighth])
    grey = np.packbits(torch.stack([h.picture[0] == 0.5 for h in holes]).numpy(), axis=-1)
    assert np.array_equal(grey, golden.arrays[f"mask{double}_bits_w{window}"])


def hole_of(corners: list[int], size: int) -> Hole:
    """What `reference` hands to the inpainting model for a box of a square picture."""
    seen = Window(0, 0, size, size)
    picture, cell = torch.zeros(3, size, size), 8
    return cut_out(picture, Box(*corners), seen, size, cell, whole_cells=False)[1]


def test_transposition(golden: GoldenSet) -> None:
    """Q2 as its probe shows it, and boxes where the attention is without the quirk."""
    probe = golden.values["transpose_probe"]
    row, column = probe["attention_peak_row_col"]
    anchor = torch.tensor([[row, column]])
    sizes = size_set(reference().search.anchors)[:1]
    centres = {}
    for mirrored in (True, False):
        cells = cell_boxes(anchor, sizes, golden.grid, released=True, mirrored=mirrored)
        left, top, right, bottom = golden.pixels(cells)[0, 0].tolist()
        centres[mirrored] = ((top + bottom - 1) / 2, (left + right - 1) / 2)
    assert centres[True] == (probe["mask_row_centre_px"], probe["mask_col_centre_px"])
    wanted = (probe["expected_row_px_if_untransposed"], probe["expected_col_px_if_untransposed"])
    # rounding up to whole pixels moves a centre by less than one
    assert centres[False] == pytest.approx(wanted, abs=1)
