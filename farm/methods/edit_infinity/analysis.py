"""The attention map as a picture: the source, the map in colours, the region on the source."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_STOPS = ((0.0, 0.0, 0.2), (0.3, 0.1, 0.6), (0.85, 0.25, 0.35), (1.0, 0.75, 0.2), (1.0, 1.0, 0.8))
"""From little to much attention, evenly spaced."""
_OUTLINE = (1.0, 0.1, 0.1)
_GAP = 8


def attention_analysis(
    image: Float[Tensor, "3 height width"],
    score: Float[Tensor, "cells_high cells_wide"],
    region: Bool[Tensor, "cells_high cells_wide"],
) -> Float[Tensor, "3 height _"]:
    """Three panels side by side, each of the picture's size.

    Args:
        image: the source, in [0, 1].
        score: attention of the target word.
        region: what was made of it.
    """
    size = tuple(image.shape[-2:])
    smooth = F.interpolate(score[None, None], size=size, mode="bilinear")[0, 0]
    low, high = smooth.min(), smooth.max()
    heat = heat_colours((smooth - low) / (high - low).clamp_min(torch.finfo(smooth.dtype).tiny))
    inside = F.interpolate(region.float()[None, None], size=size)[0]
    overlay = image * (0.35 + 0.65 * inside)
    overlay = torch.where(_rim(inside), torch.tensor(_OUTLINE)[:, None, None], overlay)
    gap = torch.ones(3, size[0], _GAP)
    return torch.cat([image, gap, heat, gap, overlay], dim=2)


def heat_colours(level: Float[Tensor, "height width"]) -> Float[Tensor, "3 height width"]:
    """Colours of levels in [0, 1], linear between the stops."""
    stops = torch.tensor(_STOPS)
    place = level.clamp(0, 1) * (len(_STOPS) - 1)
    below = place.floor().long().clamp(max=len(_STOPS) - 2)
    share = (place - below)[..., None]
    colours = stops[below] * (1 - share) + stops[below + 1] * share
    return colours.permute(2, 0, 1)


def _rim(inside: Float[Tensor, "1 height width"]) -> Bool[Tensor, "1 height width"]:
    """Pixels of a region next to one outside."""
    least = -F.max_pool2d(-inside, kernel_size=3, stride=1, padding=1)
    return (inside > 0.5) & (least < 0.5)
