"""Attention of tokens as one map of the picture (spec §5.5)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.schedules import Grid, Schedule


def attention_map(
    shares: Float[Tensor, "batch tokens"], schedule: Schedule, size: Grid
) -> Float[Tensor, "batch _ _"]:
    """Mean over scales of each scale's attention, enlarged bilinearly to `size`.

    Every scale counts alike, nothing is normalised.
    """
    total = torch.zeros(len(shares), *size, device=shares.device)
    pieces = shares.split(schedule.lengths, dim=1)
    for piece, grid in zip(pieces, schedule.grids, strict=True):
        scale = piece.unflatten(1, grid)[:, None]
        total += F.interpolate(scale, size=size, mode="bilinear", align_corners=False)[:, 0]
    return total / schedule.num_scales
