"""Luma and hue of RGB pictures, differentiable and for whole batches."""

import torch
from jaxtyping import Float
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)
"""ITU-R BT.601 as torchvision rounds it."""


def luma(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Brightness of each pixel."""
    red, green, blue = images.unbind(dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]


def hue_shifted(
    images: Float[Tensor, "batch 3 height width"], shift: Float[Tensor, "batch 1 1 1"]
) -> Float[Tensor, "batch 3 height width"]:
    """Pictures in [0, 1] with hues turned by `shift` of a full circle; greys stay."""
    hue, saturation, value = _hsv(images)
    return _rgb((hue + shift[:, 0]) % 1.0, saturation, value)


def _hsv(images: Float[Tensor, "batch 3 height width"]) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = images.unbind(dim=1)
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    grey = chroma == 0
    divisor = torch.where(grey, 1.0, chroma)
    saturation = chroma / torch.where(value == 0, 1.0, value)
    from_red, from_green, from_blue = (
        (green - blue) / divisor,
        2 + (blue - red) / divisor,
        4 + (red - green) / divisor,
    )
    sixths = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue))
    return torch.where(grey, 0.0, (sixths / 6) % 1.0), saturation, value


def _rgb(
    hue: Float[Tensor, "batch height width"],
    saturation: Float[Tensor, "batch height width"],
    value: Float[Tensor, "batch height width"],
) -> Float[Tensor, "batch 3 height width"]:
    """Channel n of 5, 3, 1 is v - vs · max(0, min(k, 4 - k, 1)) with k = (n + 6h) mod 6."""
    channels: list[Tensor] = []
    for offset in (5.0, 3.0, 1.0):
        k = (offset + 6 * hue) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)
