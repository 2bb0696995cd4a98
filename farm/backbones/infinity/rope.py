"""Rotary positions in two dimensions (spec §2.3)."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.schedules import Schedule

_BASE = 10_000.0


@lru_cache(maxsize=32)
def rope_table(
    schedule: Schedule, head_dim: int, device: str = "cpu"
) -> Float[Tensor, "2 tokens pairs"]:
    """Cosines and sines of every token of a schedule; do not change them.

    The first half of the pairs turns with the row, the second with the column, both measured in
    the schedule's `rope_grid` and rounded half to even.
    """
    half = head_dim // 2
    assert half % 2 == 0, "a head's width is a multiple of four"
    exponents = torch.arange(half // 2, dtype=torch.float32) * 2 / half
    frequencies = 1 / _BASE**exponents  # as the checkpoints' own program rounds in fp32
    full_height, full_width = schedule.rope_grid
    angles: list[Tensor] = []
    for height, width in schedule.grids:
        # whole numbers divided once: ties such as 3.5 stay ties
        rows = (torch.arange(height, dtype=torch.float64) * full_height / height).round()
        columns = (torch.arange(width, dtype=torch.float64) * full_width / width).round()
        by_row = (rows.float()[:, None] * frequencies)[:, None].expand(height, width, -1)
        by_column = (columns.float()[:, None] * frequencies)[None].expand(height, width, -1)
        angles.append(torch.cat([by_row, by_column], dim=-1).flatten(0, 1))
    angle = torch.cat(angles)
    return torch.stack([angle.cos(), angle.sin()]).to(device)


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"], table: Float[Tensor, "2 tokens pairs"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Turn the interleaved pairs (x_2i, x_2i+1) by each token's angles."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table
    turned = (first * cos - second * sin, first * sin + second * cos)
    return torch.stack(turned, dim=-1).flatten(-2)
