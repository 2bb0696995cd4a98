"""From a region to weights: how much of the source stays in every latent cell (spec §5.6)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Kernel = Literal["released", "paper"]
Region = Bool[Tensor, "height width"]

_FOREGROUND_SHARE = 0.2
_LARGE = 6
"""Cells of the coarse grid from which on a region counts as large."""
_COARSE = 4
_MEANT_FOR = 64
"""Side of the latent grid that the kernels' distances are meant for."""
_PLOT_PIXELS = 616


def above_threshold(
    score: Float[Tensor, "height width"], threshold: float
) -> Bool[Tensor, "height width"]:
    """Where a map exceeds `threshold` of the way from its minimum to its maximum."""
    low, high = score.min(), score.max()
    return score > low + threshold * (high - low)


def cells_of(mask: Region, rows: int, columns: int) -> Bool[Tensor, "{rows} {columns}"]:
    """Cells of a grid of which a fifth or more is in the region."""
    share = F.adaptive_avg_pool2d(mask.float()[None], (rows, columns))[0]
    return share >= _FOREGROUND_SHARE


def released_cells_of(mask: Region, rows: int, columns: int) -> Bool[Tensor, "{rows} {columns}"]:
    """The same as released: blocks of a whole number of pixels, from the upper left corner.

    Where the size is no multiple of the grid, blocks drift from their cells, and the last ones may
    be empty.
    """
    height, width = mask.shape
    block_height, block_width = round(height / rows), round(width / columns)
    found = torch.zeros(rows, columns, dtype=torch.bool)
    for row in range(rows):
        for column in range(columns):
            block = mask[
                row * block_height : (row + 1) * block_height,
                column * block_width : (column + 1) * block_width,
            ]
            if block.numel():
                found[row, column] = bool(block.float().mean() >= _FOREGROUND_SHARE)
    return found


def plotted(region: Region) -> Bool[Tensor, "616 616"]:
    """A region as the released program reads it back from the picture that it plots (D6).

    The picture has 616 pixels a side, whatever the number of cells. A pixel is of the cell in which
    its centre lies, and of the lower one where that is on a border.
    """
    pixels = 2 * torch.arange(_PLOT_PIXELS) + 1
    rows, columns = (((pixels * n - 1) // (2 * _PLOT_PIXELS)) for n in region.shape)
    return region[rows][:, columns]


def is_large(region: Region) -> bool:
    """Whether a region fills six or more of the 4 x 4 coarse cells."""
    return int(cells_of(region, _COARSE, _COARSE).sum()) >= _LARGE


def distances(region: Region) -> Float[Tensor, "height width"]:
    """Manhattan distance of each cell to the region; infinite where the region is empty."""
    rows = _along(torch.where(region, 0.0, math.inf))
    return _along(rows.T).T


def weights(
    region: Region, kernel: Kernel, *, large: bool, unit: float = 1.0
) -> Float[Tensor, "height width"]:
    """1 where the source stays, 0 where the target comes.

    Released: 0 up to a distance of 1, then a quarter a cell up to 0.75 at 4, 1 beyond; a large
    region has no ramp. Paper: (d - 1) / 3 between 1 and 4. An empty region keeps everything.

    Args:
        region: where to edit.
        kernel: which of the two.
        large: whether the region counts as large; nothing to the paper's kernel.
        unit: cells of the grid that the kernels are meant for in one cell of this one.
    """
    distance = distances(region) * unit
    if kernel == "paper":
        return ((distance - 1) / 3).clamp(0, 1)
    if large:
        return (distance > 1).float()
    ramp = (distance - 1) / 4
    return torch.where(distance > 4, 1.0, ramp.clamp(min=0))


def ramp_unit(height: int, width: int) -> float:
    """Kernels scale with the grid: cells of a 64 x 64 grid in one cell, to a power of two (D5)."""
    return 2.0 ** round(math.log2(_MEANT_FOR / math.sqrt(height * width)))


def _along(values: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Least of value plus distance along each row."""
    count = values.shape[1]
    places = torch.arange(count)
    steps = (places[:, None] - places[None]).abs().float()  # (to, from)
    return torch.stack([(row[None] + steps).amin(1) for row in values])
