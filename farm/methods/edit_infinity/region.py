"""Which latent cells are to change: by a mask that is given, or by a word's attention (§5.6)."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.errors import EditFailedError, InvalidImageError
from farm.masks import dilate
from farm.methods.edit_infinity.config import EditingConfig
from farm.methods.edit_infinity.framing import Frame, fit
from farm.methods.edit_infinity.needs import Layout
from farm.methods.edit_infinity.smoothing import (
    above_threshold,
    cells_of,
    is_large,
    plotted,
    ramp_unit,
    released_cells_of,
    weights,
)

_COARSE = 4
_LARGE = 6
_GREY = 128.5 / 255


@dataclass(frozen=True)
class EditRegion:
    """Where an edit may change a picture.

    Attributes:
        cells: latent cells to change.
        weight: 1 where the source stays, 0 where the target comes.
        inside: the region that the cells stand for, as finely as it is known.
    """

    cells: Bool[Tensor, "height width"]
    weight: Float[Tensor, "height width"]
    inside: Bool[Tensor, "fine_height fine_width"]


def whole(layout: Layout) -> EditRegion:
    """Everything may change: plain generation from what the source taught."""
    size = layout.latent_size
    everywhere = torch.ones(size, dtype=torch.bool)
    return EditRegion(everywhere, torch.zeros(size), everywhere)


def nothing(layout: Layout) -> EditRegion:
    """Nothing may change."""
    size = layout.latent_size
    nowhere = torch.zeros(size, dtype=torch.bool)
    return EditRegion(nowhere, torch.ones(size), nowhere)


def from_mask(
    mask: Float[Tensor, "1 height width"],
    frame: Frame,
    image_size: tuple[int, int],
    layout: Layout,
    config: EditingConfig,
    *,
    edits: Literal["white", "black"] = "white",
) -> EditRegion:
    """The region of a user's mask.

    Args:
        mask: brightness in [0, 1], of the original's size.
        frame: what of the original the layout shows.
        image_size: height and width of the original.
        layout: whose cells are asked.
        config: says which kernel.
        edits: which colour is to change; the border is at half brightness.

    Raises:
        InvalidImageError: another size than the image's, or nothing to edit in it.
    """
    found = tuple(mask.shape[-2:])
    if found != image_size:
        raise InvalidImageError(
            f"the mask has {found[1]} x {found[0]} pixels, the image {image_size[1]} x "
            f"{image_size[0]}: draw the mask on the image itself"
        )
    inside = _painted(fit(mask, frame), edits)
    if not inside.any():
        other = "black" if edits == "white" else "white"
        raise InvalidImageError(
            f"nothing in the mask is {edits}, which is what is edited: paint the region {edits}, "
            f"or set mask_edits to {other!r}"
        )
    if config.plotted_mask:  # as drawn, in blocks of the mask's own pixels (spec §5.6)
        drawn = _painted(frame.seen.of(mask), edits)
        cells, large = _released(drawn, layout)
    else:
        cells, large = cells_of(inside, *layout.latent_size), is_large(inside)
    if not cells.any():
        raise InvalidImageError(
            "the mask's region fills no fifth of any latent cell "
            f"({layout.latent_size[0]} x {layout.latent_size[1]} of them): paint a larger one"
        )
    return _weighted(cells, inside, config, large=large)


def from_attention(
    score: Float[Tensor, "fine_height fine_width"], layout: Layout, config: EditingConfig
) -> EditRegion:
    """The region where a word's attention exceeds the threshold.

    Args:
        score: of the word, a whole number of values for each latent cell and side.
        layout: whose cells are asked.
        config: says which threshold and kernel.

    Raises:
        EditFailedError: the map is the same everywhere, so that it singles nothing out.
    """
    inside = above_threshold(score, config.threshold)
    if config.large_threshold is not None and is_large(inside):
        inside = above_threshold(score, config.large_threshold)
    if not inside.any():
        raise EditFailedError(
            "the target word's attention is the same everywhere and shows no region: name another "
            "word, or give a mask"
        )
    if config.plotted_mask:
        cells, large = _released(plotted(inside), layout)  # D6
        return _weighted(cells, inside, config, large=large)
    if config.grow > 0 and not is_large(inside):
        radius = round(config.grow * inside.shape[0] / layout.latent_size[0])
        inside = dilate(inside.float(), radius) > 0
    cells = cells_of(inside, *layout.latent_size)
    if not cells.any():  # a peak narrower than a fifth of any cell
        cells = F.adaptive_max_pool2d(inside.float()[None], layout.latent_size)[0] > 0
    return _weighted(cells, inside, config, large=is_large(inside))


def _painted(
    mask: Float[Tensor, "1 mask_height mask_width"], edits: Literal["white", "black"]
) -> Bool[Tensor, "mask_height mask_width"]:
    """Pixels of the colour that is to change; white is above 128 of 255, as released."""
    bright = mask[0] > _GREY
    return bright if edits == "white" else ~bright


def _released(
    region: Bool[Tensor, "any_height any_width"], layout: Layout
) -> tuple[Bool[Tensor, "height width"], bool]:
    """Cells, and whether they are many, by the released program's blocks of pixels."""
    large = int(released_cells_of(region, _COARSE, _COARSE).sum()) >= _LARGE
    return released_cells_of(region, *layout.latent_size), large


def _weighted(
    cells: Bool[Tensor, "height width"],
    inside: Bool[Tensor, "fine_height fine_width"],
    config: EditingConfig,
    *,
    large: bool,
) -> EditRegion:
    unit = ramp_unit(*cells.shape)
    return EditRegion(cells, weights(cells, config.kernel, large=large, unit=unit), inside)
