"""Multi-scale bitwise residual quantisation: a latent as bits of every scale (spec §3.2, §3.3).

A bit vector b stands for the code (2b - 1) / √d, of unit norm; there is no codebook. Scale by
scale the residual is shrunk, its signs are the bits, and their codes are enlarged and subtracted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from farm.backbones.infinity.schedules import Grid, Schedule

Bits = tuple[Tensor, ...]
"""Bits of every scale, each (batch, bits, height, width) in latent cells."""


@dataclass(frozen=True)
class Quantised:
    """A latent as bits.

    Attributes:
        bits: of every scale; with noise, those that repair it.
        history: sum of the enlarged codes after each scale, (batch, bits, height, width).
    """

    bits: Bits
    history: tuple[Tensor, ...]

    @property
    def codes(self) -> Float[Tensor, "batch bits height width"]:
        """What the decoder takes."""
        return self.history[-1]


def codes_of(
    bits: Bool[Tensor, "batch bits height width"],
) -> Float[Tensor, "batch bits height width"]:
    """(2b - 1) / √d."""
    return (2 * bits.float() - 1) / bits.shape[1] ** 0.5


def resize(
    features: Float[Tensor, "batch channels _ _"], size: Grid
) -> Float[Tensor, "batch channels _ _"]:
    """Bilinear without antialiasing, as the transformer's inputs are shrunk and codes enlarged.

    The released code does it in three dimensions with a depth of one, which is the same.
    """
    if tuple(features.shape[-2:]) == size:
        return features
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def shrink(
    residual: Float[Tensor, "batch channels _ _"], size: Grid
) -> Float[Tensor, "batch channels _ _"]:
    """Means over areas, as the quantiser shrinks residuals."""
    if tuple(residual.shape[-2:]) == size:
        return residual
    return F.interpolate(residual, size=size, mode="area")


def quantise(
    features: Float[Tensor, "batch bits height width"],
    schedule: Schedule,
    flips: Sequence[Bool[Tensor, "batch bits _ _"]] | None = None,
) -> Quantised:
    """Bits of an encoder's output.

    Args:
        features: of the schedule's last latent grid.
        schedule: its latent grids.
        flips: bits to flip in what later scales see (bitwise self-correction). The bits returned
            are those of the residual that the noise left, unflipped: what later scales should say
            to repair it.
    """
    history: list[Tensor] = []
    chosen: list[Tensor] = []
    total = torch.zeros_like(features)
    for scale, size in enumerate(schedule.latent_grids):
        bits = shrink(features - total, size) > 0
        seen = bits if flips is None else bits ^ flips[scale]
        total = total + resize(codes_of(seen), schedule.latent_size)
        chosen.append(bits)
        history.append(total)
    return Quantised(tuple(chosen), tuple(history))


def accumulate(bits: Sequence[Tensor], schedule: Schedule) -> Quantised:
    """Bits that are known, summed up."""
    history: list[Tensor] = []
    for scale in bits:
        enlarged = resize(codes_of(scale), schedule.latent_size)
        history.append(history[-1] + enlarged if history else enlarged)
    return Quantised(tuple(bits), tuple(history))


def next_inputs(
    codes: Float[Tensor, "batch bits height width"], schedule: Schedule, scale: int
) -> Float[Tensor, "batch tokens token_bits"]:
    """Input of scale `scale` (from 1 on): the sum so far, shrunk to that scale's grid."""
    return to_tokens(resize(codes, schedule.latent_grids[scale]), schedule.cell)


def teacher_inputs(
    quantised: Quantised, schedule: Schedule
) -> Float[Tensor, "batch tokens token_bits"]:
    """Inputs of all scales but the first, one after the other."""
    return torch.cat(list(_inputs(quantised, schedule)), dim=1)


def teacher_targets(
    quantised: Quantised, schedule: Schedule
) -> Bool[Tensor, "batch tokens token_bits"]:
    """Bits of all scales, token by token."""
    return torch.cat([to_tokens(bits, schedule.cell) for bits in quantised.bits], dim=1)


def to_tokens(
    cells: Shaped[Tensor, "batch channels height width"], cell: int
) -> Shaped[Tensor, "batch tokens token_channels"]:
    """Rows of `cell` x `cell` cells, channel c of cell (y, x) at c · cell² + y · cell + x."""
    return F.pixel_unshuffle(cells, cell).flatten(2).transpose(1, 2)


def to_cells(
    tokens: Shaped[Tensor, "batch tokens token_channels"], grid: Grid, cell: int
) -> Shaped[Tensor, "batch channels _ _"]:
    """Inverse of `to_tokens` for a grid of tokens."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, grid), cell)


def _inputs(quantised: Quantised, schedule: Schedule) -> Iterator[Tensor]:
    for scale in range(1, schedule.num_scales):
        yield next_inputs(quantised.history[scale - 1], schedule, scale)
