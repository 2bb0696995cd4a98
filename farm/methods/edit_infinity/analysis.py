"""Pictures that explain an edit: the attention map in colours with its region, and all drawings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_STOPS = ((0.0, 0.0, 0.2), (0.3, 0.1, 0.6), (0.85, 0.25, 0.35), (1.0, 0.75, 0.2), (1.0, 1.0, 0.8))
"""From little to much attention, evenly spaced."""
_OUTLINE = (1.0, 0.1, 0.1)
_GAP = 8
_CANDIDATE_SIDE, _CANDIDATES_IN_A_ROW = 256, 4


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


def candidates_sheet(
    drawings: Sequence[Float[Tensor, "3 height width"]],
) -> Float[Tensor, "3 sheet_height sheet_width"]:
    """Drawings beside each other, four in a row, on white; large ones are shown smaller."""
    shown = torch.stack(list(drawings))
    longer = max(shown.shape[-2:])
    if longer > _CANDIDATE_SIDE:
        size = [max(1, round(side * _CANDIDATE_SIDE / longer)) for side in shown.shape[-2:]]
        shown = F.interpolate(shown, size, mode="bilinear", antialias=True)
    shown = F.pad(shown, (_GAP // 2,) * 4, value=1.0)
    columns = min(len(shown), _CANDIDATES_IN_A_ROW)
    missing = -len(shown) % columns
    shown = torch.cat([shown, torch.ones(missing, *shown.shape[1:])])
    rows = shown.unflatten(0, (-1, columns))
    return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
