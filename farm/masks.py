"""Masks: numbers in [0, 1], 1 = edit, 0 = keep, with the shape of the image they belong to."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.images import DEFAULT_LIMITS, ImageLimits, decode_image

# Luma of ITU-R BT.601, as Pillow's conversion to grey.
_RED_LUMA, _BLUE_LUMA = 0.299, 0.114


class Box(NamedTuple):
    """A rectangle of whole pixels; right and bottom are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def decode_mask(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> Float[Tensor, "1 h w"]:
    """A mask from the bytes of any image that `decode_image` takes: white = edit, grey = partly.

    The brightness of colours counts, and transparent counts as black: what is not painted white
    is kept.

    Raises:
        InvalidImageError: see `decode_image`.
    """
    decoded = decode_image(data, limits=limits)
    red, green, blue = decoded.image
    # In this form a grey is exactly itself, so white is 1 and not 0.99999994.
    luma = green + _RED_LUMA * (red - green) + _BLUE_LUMA * (blue - green)
    if decoded.alpha is not None:
        luma = luma - (1 - decoded.alpha[0])  # over black instead of over white
    return luma.clamp(0, 1)[None]


def binarise_midpoint(
    score: Float[Tensor, "*batch height width"],
) -> Float[Tensor, "*batch height width"]:
    """1 where a map exceeds the midpoint of its own minimum and maximum (definitions.md).

    A constant map singles nothing out, so its mask is empty.
    """
    above = score - score.amin(dim=(-2, -1), keepdim=True)
    below = score.amax(dim=(-2, -1), keepdim=True) - score
    return (above > below).to(score)


def differing(
    image: Float[Tensor, "channels height width"],
    other: Float[Tensor, "channels height width"],
    threshold: float,
    window: int,
) -> Float[Tensor, "1 height width"]:
    """1 where two pictures in [0, 1] differ by more than `threshold`.

    The difference is that of the channel that differs most, averaged over `window` pixels.

    Args:
        image: one.
        other: the other.
        threshold: of a picture's range.
        window: side of the square of pixels, odd.
    """
    difference = (image - other).abs().amax(dim=0)[None]
    mean = F.avg_pool2d(difference, window, 1, window // 2, count_include_pad=False)
    return (mean > threshold).float()


def dilate(
    mask: Float[Tensor, "*batch height width"], radius: int
) -> Float[Tensor, "*batch height width"]:
    """The largest value within `radius` pixels (Euclidean): what is masked grows by a disc.

    Raises:
        InvalidRequestError: `radius` is negative.
    """
    _check_radius(radius)
    height = mask.shape[-2]
    result = mask.clone()
    for offset in range(min(radius, height - 1) + 1):
        chord = math.isqrt(radius**2 - offset**2)  # half the disc's width in this row
        rows = _pool_rows(mask, chord)
        above, below = result[..., : height - offset, :], result[..., offset:, :]
        torch.maximum(above, rows[..., offset:, :], out=above)
        torch.maximum(below, rows[..., : height - offset, :], out=below)
    return result


def _pool_rows(
    mask: Float[Tensor, "*batch height width"], half_width: int
) -> Float[Tensor, "*batch height width"]:
    width = mask.shape[-1]
    rows = mask.reshape(-1, 1, width)  # (rows, 1, width)
    pooled = F.max_pool1d(rows, 2 * half_width + 1, stride=1, padding=half_width)
    return pooled.reshape(mask.shape)


def feather(
    mask: Float[Tensor, "*batch height width"], radius: int
) -> Float[Tensor, "*batch height width"]:
    """Soften borders with a Gaussian of sigma = radius / 2, cut off at `radius` pixels.

    A border becomes a ramp through 1/2; what lies further than `radius` from it (per axis) keeps
    its value. The image's edge is no border. To keep the whole mask at 1, dilate by `radius` first.

    Raises:
        InvalidRequestError: `radius` is negative.
    """
    _check_radius(radius)
    if radius == 0:
        return mask
    steps = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
    kernel = torch.exp(-0.5 * (steps / (radius / 2)) ** 2)
    kernel = kernel / kernel.sum()
    soft = mask.reshape(-1, 1, *mask.shape[-2:])
    soft = F.pad(soft, (radius, radius, radius, radius), mode="replicate")
    soft = F.conv2d(F.conv2d(soft, kernel[None, None, None]), kernel[None, None, :, None])
    return soft.reshape(mask.shape).clamp(0, 1)


def _check_radius(radius: int) -> None:
    if radius < 0:
        raise InvalidRequestError(f"found radius {radius}, expected 0 pixels or more; raise it")


def boxes_to_masks(
    boxes: Float[Tensor, "boxes 4"], height: int, width: int
) -> Float[Tensor, "boxes 1 {height} {width}"]:
    """One mask per box (left, top, right, bottom), in pixels.

    A pixel is inside when its centre is, so a box of whole numbers is the slice
    [top:bottom, left:right]. What lies outside the image is cut off.
    """
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    left, top, right, bottom = boxes[:, :, None].unbind(1)  # each (boxes, 1)
    columns = (left <= x) & (x < right)  # (boxes, width)
    rows = (top <= y) & (y < bottom)  # (boxes, height)
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(boxes)


def composite(
    source: Float[Tensor, "*batch channels height width"],
    edited: Float[Tensor, "*batch channels height width"],
    mask: Float[Tensor, "*#batch 1 height width"],
) -> Float[Tensor, "*batch channels height width"]:
    """(1 - mask) · source + mask · edited; exactly `source` where mask is 0, `edited` where 1."""
    return torch.lerp(source, edited, mask.to(source))


def iou(
    first: Float[Tensor, "*batch height width"], second: Float[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch"]:
    """Intersection over union, in [0, 1]; for soft masks Σ min / Σ max. Two empty masks give 1."""
    intersection = torch.minimum(first, second).sum(dim=(-2, -1))
    union = torch.maximum(first, second).sum(dim=(-2, -1))
    return torch.where(union > 0, intersection / union, 1.0)


def pointing(
    score: Float[Tensor, "*batch height width"], mask: Float[Tensor, "*batch height width"]
) -> Bool[Tensor, "*batch"]:
    """Whether a map's maximum lies in the mask (over 1/2).

    Where several pixels share the maximum, as in enlarged maps, more than half of them must.
    """
    peak = score == score.amax(dim=(-2, -1), keepdim=True)
    hits = (peak & (mask > 0.5)).sum(dim=(-2, -1))
    return 2 * hits > peak.sum(dim=(-2, -1))
