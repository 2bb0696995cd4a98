"""Random views of a picture: what CLIP sees must hold under crops, tilts and changes of colour.

A view is a row of numbers, so it can be drawn in one place (keyed) and applied in another, and many
views of many pictures are one resampling and a few products.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.losses.colours import hue_shifted, luma

Views = Float[Tensor, "views 21"]

_SMALLEST_CROP = 0.6
_FLIP, _AFFINE, _PERSPECTIVE, _JITTER, _GREY = 0.5, 0.8, 0.5, 0.7, 0.15
"""Chances of each change (Learnable Regions spec §2)."""
_DEGREES, _SHIFT, _DISTORTION, _STRENGTH = 15.0, 0.1, 0.4, 0.1
_FILL = 1.0
_ROOM = 1.25
"""How much larger than a view its picture may be before it is made smaller without aliasing."""


class _Columns(NamedTuple):
    """Parts of a row, in shares of the picture's side unless said otherwise."""

    crop: Tensor
    """Left, top and side."""
    flip: Tensor
    affine: Tensor
    """Degrees, and shift to the right and down."""
    corners: Tensor
    """Where perspective moves the corners: right and down, from the top left clockwise."""
    jitter: Tensor
    """Whether colours change; brightness, contrast, saturation, hue."""
    grey: Tensor


_WIDTHS = (3, 1, 3, 8, 5, 1)
VIEW_NUMBERS = sum(_WIDTHS)
"""Numbers of a view."""


def sample_views(count: int, generator: torch.Generator) -> Views:
    """Views as the released program draws them (spec §2); the first sees the whole picture.

    Crop of s ~ U(.6, 1); mirrored with p .5; with p .8 turned by up to ±15° and shifted by up to
    a tenth; perspective (.4) with p .5; colours changed by up to a tenth with p .7; grey with
    p .15.
    """

    def uniform(columns: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, columns, generator=generator)

    def chance(probability: float) -> Tensor:
        return (uniform(1) < probability).float()

    side = uniform(1, _SMALLEST_CROP, 1.0)
    side[0] = 1.0
    place = uniform(2) * (1 - side)
    affine = chance(_AFFINE) * torch.cat(
        [uniform(1, -_DEGREES, _DEGREES), uniform(2, -_SHIFT, _SHIFT)], dim=1
    )
    inwards = torch.tensor([1, 1, -1, 1, -1, -1, 1, -1.0])
    corners = chance(_PERSPECTIVE) * inwards * uniform(8, 0.0, _DISTORTION / 2)
    factors = uniform(3, 1 - _STRENGTH, 1 + _STRENGTH)
    jitter = torch.cat([chance(_JITTER), factors, uniform(1, -_STRENGTH, _STRENGTH)], dim=1)
    flip, grey = chance(_FLIP), chance(_GREY)
    return torch.cat([place, side, flip, affine, corners, jitter, grey], dim=1)


def plain_views(count: int) -> Views:
    """Views that change nothing."""
    views = torch.zeros(count, VIEW_NUMBERS)
    views[:, 2] = 1.0
    return views


def apply_views(
    images: Float[Tensor, "batch 3 height width"],
    views: Float[Tensor, "batch views 21"],
    size: int,
) -> Float[Tensor, "batch views 3 {size} {size}"]:
    """Each picture under each of its views, resampled once; what lies outside is white."""
    batch, count = views.shape[:2]
    side = round(_ROOM * size)
    if min(images.shape[-2:]) > side:
        images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    columns = _Columns(*views.flatten(0, 1).split(_WIDTHS, dim=1))
    grid, inside = _sampling_grid(columns, size)
    repeated = images.repeat_interleave(count, dim=0)
    sampled = F.grid_sample(
        repeated, grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    drawn = torch.where(inside[:, None], sampled, _FILL)
    drawn = torch.where(_switch(columns.jitter[:, :1]), _jittered(drawn, columns.jitter), drawn)
    drawn = torch.where(_switch(columns.grey), luma(drawn).expand_as(drawn), drawn)
    return drawn.unflatten(0, (batch, count))


def _switch(column: Float[Tensor, "rows 1"]) -> Tensor:
    return column.view(-1, 1, 1, 1) > 0.5


def _sampling_grid(columns: _Columns, size: int) -> tuple[Tensor, Tensor]:
    """Where each pixel of each view comes from, for `grid_sample`, and whether from inside.

    From the view back to the picture: perspective, turn and shift, mirror, crop.
    """
    middle = (torch.arange(size).to(columns.crop) + 0.5) / size
    x, y = torch.meshgrid(middle, middle, indexing="xy")
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1)  # (pixels, 3)
    mapped = points @ _homographies(columns.corners).transpose(1, 2)
    places = mapped[..., :2] / mapped[..., 2:]  # (rows, pixels, 2)
    inside = _within(places)
    places = _unturned(places, columns.affine)
    inside &= _within(places)
    mirrored = torch.stack([1 - places[..., 0], places[..., 1]], dim=-1)
    places = torch.where(columns.flip[:, None] > 0.5, mirrored, places)
    places = columns.crop[:, None, :2] + columns.crop[:, None, 2:] * places
    grid = (2 * places - 1).unflatten(1, (size, size))
    return grid, inside.unflatten(1, (size, size))


def _within(places: Float[Tensor, "rows pixels 2"]) -> Tensor:
    return ((places >= 0) & (places <= 1)).all(dim=-1)


def _unturned(
    places: Float[Tensor, "rows pixels 2"], affine: Float[Tensor, "rows 3"]
) -> Float[Tensor, "rows pixels 2"]:
    angle = affine[:, 0] * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([cosine, sine, -sine, cosine], dim=-1).unflatten(-1, (2, 2))
    return (places - 0.5 - affine[:, None, 1:]) @ turn.transpose(1, 2) + 0.5


def _homographies(corners: Float[Tensor, "rows 8"]) -> Float[Tensor, "rows 3 3"]:
    """The maps that take the moved corners of the unit square back to where they were.

    u = (ax + by + c) / (gx + hy + 1) and v likewise: eight linear equations in eight numbers.
    """
    start = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]]).to(corners)
    end = start + corners.unflatten(1, (4, 2))
    x, y = end.unbind(-1)  # each (rows, 4)
    u, v = start.expand_as(end).unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    first = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    second = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    solved = torch.linalg.solve(torch.cat([first, second], dim=1), torch.cat([u, v], dim=1))
    return torch.cat([solved, one[:, :1]], dim=1).unflatten(1, (3, 3))


def _jittered(
    images: Float[Tensor, "rows 3 height width"], jitter: Float[Tensor, "rows 5"]
) -> Float[Tensor, "rows 3 height width"]:
    """Brightness, contrast, saturation and hue in this order, each clamped to [0, 1]."""
    _, brightness, contrast, saturation, hue = (
        column.view(-1, 1, 1, 1) for column in jitter.unbind(dim=1)
    )
    images = (images * brightness).clamp(0, 1)
    mean = luma(images).mean(dim=(1, 2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = luma(images)
    images = (grey + saturation * (images - grey)).clamp(0, 1)
    return hue_shifted(images, hue)
