"""From a region of a picture of any size to what the model draws on, and back."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.images import Placement, Window, fit_to_model
from farm.masks import Box, boxes_to_masks, composite, differing, dilate, feather
from farm.methods.learnable_regions.boxes import in_square
from farm.methods.learnable_regions.config import RenderConfig

_GREY = 0.5
"""What a hole shows; 0 in [-1, 1], as inpainting UNets are trained."""


@dataclass(frozen=True)
class Canvas:
    """One region, and the part of the picture that the model sees with it.

    Attributes:
        box: the region, in pixels of the original.
        window: the part, in pixels of the original.
        placement: where the part lies in the model's square.
    """

    box: Box
    window: Window
    placement: Placement


@dataclass(frozen=True)
class Hole:
    """What the inpainting model is given.

    Attributes:
        picture: the model's square, grey in the hole; in [0, 1].
        mask: 1 = hole, one number per latent cell.
    """

    picture: Float[Tensor, "3 size size"]
    mask: Float[Tensor, "1 latent latent"]


def crop_window(box: Box, height: int, width: int, size: int, context: float) -> Window:
    """The part of a picture that is drawn with a region.

    A square around the region, `context` times its longer side, but never smaller than the model's
    square of `size`, so that no picture is enlarged that need not be; where the picture has no room
    for it, it is moved, then cut.
    """
    side = max(math.ceil(context * max(box.right - box.left, box.bottom - box.top)), size)
    window_height, window_width = min(side, height), min(side, width)
    top = (box.top + box.bottom - window_height) // 2
    left = (box.left + box.right - window_width) // 2
    return Window(
        top=min(max(top, 0), height - window_height),
        left=min(max(left, 0), width - window_width),
        height=window_height,
        width=window_width,
    )


def cut_out(
    image: Float[Tensor, "3 height width"],
    box: Box,
    window: Window,
    size: int,
    cell: int,
    *,
    whole_cells: bool = True,
) -> tuple[Canvas, Hole]:
    """The model's square for a region, with its hole.

    The hole is the region, widened to whole latent cells: what is drawn must cover the region, and
    the mask knows whole cells alone. Where nothing is pasted, as in the released program, the hole
    is the region itself and the mask its every `cell`-th pixel (spec §1.8).

    Args:
        image: the original, in [0, 1].
        box: the region.
        window: the part that the model sees.
        size: side of the model's square.
        cell: pixels along a side of a latent cell.
        whole_cells: whether the hole is widened.
    """
    square, placement = fit_to_model(window.of(image), size, mode="pad")
    inner = Box(
        box.left - window.left,
        box.top - window.top,
        box.right - window.left,
        box.bottom - window.top,
    )
    left, top, right, bottom = in_square(inner, placement)
    edges = [round(edge) for edge in (left, top, right, bottom)]
    if whole_cells:
        edges = [math.floor(left / cell) * cell, math.floor(top / cell) * cell]
        edges += [math.ceil(right / cell) * cell, math.ceil(bottom / cell) * cell]
    mask = boxes_to_masks(torch.tensor([edges], dtype=torch.float32), size, size)[0]
    picture = torch.where(mask > 0.5, _GREY, square)
    return Canvas(box, window, placement), Hole(picture, mask[:, ::cell, ::cell])


def paste_mask(box: Box, height: int, width: int, config: RenderConfig) -> Float[Tensor, "1 h w"]:
    """How much of each pixel is replaced: 0 outside the region, 1 inside, soft along its rim.

    The rim is inside the region, and none is where the region ends with the picture.
    """
    shorter = min(box.right - box.left, box.bottom - box.top)
    radius = min(round(config.feather * shorter / 2), (shorter - 1) // 2)
    edges = (
        box.left + radius * (box.left > 0),
        box.top + radius * (box.top > 0),
        box.right - radius * (box.right < width),
        box.bottom - radius * (box.bottom < height),
    )
    mask = boxes_to_masks(torch.tensor([edges], dtype=torch.float32), height, width)[0]
    return feather(mask, radius)


def changed_part(
    image: Float[Tensor, "3 height width"],
    drawn: Float[Tensor, "3 size size"],
    canvas: Canvas,
    threshold: float,
    cell: int,
) -> Float[Tensor, "1 window_height window_width"]:
    """Where what was drawn is another thing than what was there: 1, and fading around it.

    Compared in the model's square, where both are equally sharp, over a latent cell: less than that
    is what the autoencoder alone changes.

    Args:
        image: the original, in [0, 1].
        drawn: the model's square.
        canvas: what the model saw.
        threshold: of a picture's range.
        cell: pixels along a side of a latent cell.
    """
    window = canvas.window
    was = fit_to_model(window.of(image), drawn.shape[-1], mode="pad")[0]
    border = max(1, cell // 4)
    changed = feather(dilate(differing(drawn, was, threshold, cell | 1), border), border)
    seen = canvas.placement.square.of(changed)
    return _to_size(seen, window.height, window.width).clamp(0, 1)


def paste(
    image: Float[Tensor, "3 height width"],
    drawn: Float[Tensor, "3 size size"],
    canvas: Canvas,
    config: RenderConfig,
    changed: Float[Tensor, "1 window_height window_width"] | None = None,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
    """What was drawn in its place in the original, at the original's resolution.

    Where the mask is 0 the original's pixels stay to the bit. Without `config.paste` everything
    that the model saw is replaced, as released.

    Args:
        image: the original, in [0, 1].
        drawn: the model's square.
        canvas: what the model saw, and the region.
        config: whether the region alone is replaced, and its rim.
        changed: how much of the region's pixels is replaced at all (D16); None: all of it.

    Returns:
        The picture, and how much of each of its pixels could be replaced: the region.
    """
    height, width = image.shape[-2:]
    window = canvas.window
    part = _to_size(canvas.placement.square.of(drawn), window.height, window.width).clamp(0, 1)
    mask = torch.zeros(1, height, width)
    inner = torch.ones(1, window.height, window.width)
    if config.paste:  # D6
        inner = window.of(paste_mask(canvas.box, height, width, config))
    window.of(mask).copy_(inner)
    if config.paste and changed is not None:
        inner = inner * changed
    result = image.clone()
    window.of(result).copy_(composite(window.of(image), part.to(image), inner))
    return result, mask


def scaled_down(canvas: Canvas, placement: Placement) -> Canvas:
    """The canvas as it is on the original's own square: small pictures are enough for CLIP.

    Args:
        canvas: on the original.
        placement: of the original in the square.
    """
    window = canvas.window
    corners = Box(window.left, window.top, window.left + window.width, window.top + window.height)
    box, around = (_whole(in_square(b, placement), placement.size) for b in (canvas.box, corners))
    small = Window(around.top, around.left, around.bottom - around.top, around.right - around.left)
    return Canvas(box, small, canvas.placement)


def _whole(box: tuple[float, float, float, float], size: int) -> Box:
    left, top, right, bottom = (min(max(round(v), 0), size) for v in box)
    left, top = min(left, size - 1), min(top, size - 1)
    return Box(left, top, max(right, left + 1), max(bottom, top + 1))


def _to_size(
    image: Float[Tensor, "channels _ _"], height: int, width: int
) -> Float[Tensor, "channels {height} {width}"]:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]
