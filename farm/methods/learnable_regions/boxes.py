"""Which regions an anchor may get: sizes, and where each lies in cells, pixels and the picture."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from farm.images import Placement
from farm.masks import Box
from farm.methods.learnable_regions.config import AnchorConfig

_ROUNDING = 1e-4
"""Of a pixel: a border that misses a whole number by less lies on it."""


def size_set(config: AnchorConfig) -> Float[Tensor, "sizes 2"]:
    """Half-heights and half-widths in cells; by half-width, then by ratio of sides.

    A ratio keeps the area of the square.
    """
    halves = [
        (half / math.sqrt(ratio), half * math.sqrt(ratio))
        for half in config.half_widths
        for ratio in config.aspect_ratios
    ]
    return torch.tensor(halves)


def cell_boxes(
    anchors: Int[Tensor, "anchors 2"],
    sizes: Float[Tensor, "sizes 2"],
    grid: int,
    *,
    released: bool = False,
    mirrored: bool = False,
) -> Float[Tensor, "anchors sizes 4"]:
    """Left, top, right, bottom in cells of a square grid, cut off at its border.

    Around the middle of the anchor's cell, whose left border is its column and whose right border
    is one further; borders of the grid are 0 and `grid`. As `released`, around the cell's index,
    with indices 0 to grid - 1 as the borders (spec §1.4).

    Args:
        anchors: row and column.
        sizes: half-heights and half-widths.
        grid: cells along a side.
        released: the released program's rule.
        mirrored: row and column change places (Q2).
    """
    row, column = anchors.float().unbind(1)
    x, y = (row, column) if mirrored else (column, row)
    if not released:  # D1
        x, y = x + 0.5, y + 0.5
    half_height, half_width = sizes.unbind(1)
    sides = [
        x[:, None] - half_width,
        y[:, None] - half_height,
        x[:, None] + half_width,
        y[:, None] + half_height,
    ]
    return torch.stack(sides, dim=-1).clamp(0, grid - 1 if released else grid)


def misfits(
    boxes: Float[Tensor, "*batch 4"], saliency: Float[Tensor, "grid grid"]
) -> Float[Tensor, "*batch"]:
    """How little regions are what is salient: 1 - Σ min / Σ max of region and saliency, by cells.

    Args:
        boxes: in cells, where cell k covers k to k + 1; a cell counts as far as it is covered.
        saliency: 0 to 1.

    Returns:
        0 for a region that is the salient part and nothing else, 1 for one beside it (D11).
    """
    cell = torch.arange(saliency.shape[0], dtype=boxes.dtype)
    left, top, right, bottom = (side[..., None] for side in boxes.unbind(-1))
    across = (torch.minimum(right, cell + 1) - torch.maximum(left, cell)).clamp(min=0)
    down = (torch.minimum(bottom, cell + 1) - torch.maximum(top, cell)).clamp(min=0)
    covered = down[..., :, None] * across[..., None, :]
    common = torch.minimum(covered, saliency).sum(dim=(-2, -1))
    return 1 - common / torch.maximum(covered, saliency).sum(dim=(-2, -1))


def square_pixels(
    boxes: Float[Tensor, "*batch 4"], grid: int, size: int, *, released: bool = False
) -> Float[Tensor, "*batch 4"]:
    """Boxes in cells as boxes in pixels of the square of side `size`.

    The released program takes indices 0 to grid - 1 for pixels 0 to size - 1 and rounds up, in its
    order of computation, ceil((size - 1) v / (grid - 1)) (spec §1.4).
    """
    if not released:
        return boxes * (size / grid)
    return -torch.div(-(size - 1) * boxes, grid - 1, rounding_mode="floor")


def in_original(pixels: Float[Tensor, "boxes 4"], placement: Placement) -> list[Box]:
    """Boxes in pixels of a model's square as whole pixels of the original.

    What lies in the square's padding is cut off; every box keeps at least one pixel.
    """
    return [_placed(box, placement) for box in pixels.tolist()]


def _placed(box: Sequence[float], placement: Placement) -> Box:
    seen, square = placement.seen, placement.square
    along_x = (square.left, square.width, seen.left, seen.width)
    along_y = (square.top, square.height, seen.top, seen.height)
    left, right = _span(box[0], box[2], *along_x)
    top, bottom = _span(box[1], box[3], *along_y)
    return Box(left, top, right, bottom)


def _span(
    start: float, end: float, square_start: int, square_size: int, first: int, size: int
) -> tuple[int, int]:
    """Both ends along one axis, rounded outwards, inside what the model sees of the original."""
    scale = size / square_size
    low = math.floor((start - square_start) * scale + _ROUNDING)
    high = math.ceil((end - square_start) * scale - _ROUNDING)
    low = min(max(low, 0), size - 1)
    high = min(max(high, low + 1), size)
    return first + low, first + high


def in_square(box: Box, placement: Placement) -> tuple[float, float, float, float]:
    """A box of the original in pixels of the model's square; not rounded, and not cut off."""
    seen, square = placement.seen, placement.square
    across, down = square.width / seen.width, square.height / seen.height
    return (
        square.left + (box.left - seen.left) * across,
        square.top + (box.top - seen.top) * down,
        square.left + (box.right - seen.left) * across,
        square.top + (box.bottom - seen.top) * down,
    )
