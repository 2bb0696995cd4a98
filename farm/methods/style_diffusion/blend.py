"""Local blend: the target may differ only where the words' attention is (spec §7)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_MOST = 0.5
"""Share of the picture from which on something is no thing in it."""


def blend_active(step: int, num_steps: int, start: float) -> bool:
    """Whether step `step`, counted from 0, ends with a blend.

    The released program counts its steps from 1 and blends where the count exceeds int(start · T).
    """
    return step >= int(start * num_steps)


def widen(
    scores: Float[Tensor, "rows size size"], pool: int = 3
) -> Float[Tensor, "rows size size"]:
    """Maximum over each `pool` × `pool` neighbourhood, so that a region reaches over a rim.

    Where a cell of the map is a large share of the picture, 1 (nothing) is enough.
    """
    return F.max_pool2d(scores, kernel_size=pool, stride=1, padding=pool // 2)


def region(
    scores: Float[Tensor, "rows size size"],
    threshold: float,
    height: int,
    shielded: Bool[Tensor, "rows size size"] | None = None,
    *,
    grow: int = 0,
    held: Bool[Tensor, "rows size size"] | None = None,
) -> Bool[Tensor, "height height"]:
    """Where any row's score exceeds `threshold` times that row's greatest.

    Scores are non-negative; a row of zeros (a prompt without blend words) adds nothing. What is
    shielded in a row does not count there. Then a row grows by `grow` cells in all directions,
    unless it covers half of the picture, but never over what is `held` (PAPER.md D11).
    """
    greatest = scores.amax(dim=(1, 2), keepdim=True)
    high = scores > threshold * greatest
    if shielded is not None:
        high = high & ~shielded
    if grow > 0:
        high = _grown(high, grow)
    if held is not None:
        high = high & ~held
    large = F.interpolate(high[None].float(), size=(height, height), mode="nearest")[0]
    return large.any(dim=0)


def shield(
    scores: Float[Tensor, "rows size size"],
    kept: Float[Tensor, "words rows size size"],
    threshold: float,
) -> Bool[Tensor, "words rows size size"]:
    """Where each word that stays is looked at, rather than the words that change (PAPER.md D10).

    A word counts if its map and that of the changing words are negatively correlated: what
    describes the very object that changes shares its place and shields nothing. It shields where
    it exceeds `threshold` of its own greatest, and the changing words relative to theirs.
    """
    tiny = torch.finfo(scores.dtype).tiny
    change = scores / scores.amax(dim=(1, 2), keepdim=True).clamp_min(tiny)
    stay = kept / kept.amax(dim=(2, 3), keepdim=True).clamp_min(tiny)
    centred = change - change.mean(dim=(1, 2), keepdim=True)
    together = (stay * centred).sum(dim=(2, 3), keepdim=True)  # the covariance's sign is enough
    return (together < 0) & (stay > threshold) & (stay > change)


def holds(
    kept: Float[Tensor, "words rows size size"], threshold: float
) -> Bool[Tensor, "words rows 1 1"]:
    """Which words that stay are things, rather than what things stand before (PAPER.md D11).

    A thing is looked at, above `threshold` of the greatest, in less than half of the picture.
    """
    greatest = kept.amax(dim=(2, 3), keepdim=True)
    return (kept > threshold * greatest).float().mean(dim=(2, 3), keepdim=True) < _MOST


def blend(
    latents: Float[Tensor, "2 channels height width"], mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "2 channels height width"]:
    """Latents of (source, target) with the target's replaced by the source's outside `mask`."""
    return latents[:1] + mask * (latents - latents[:1])


def _grown(high: Bool[Tensor, "rows size size"], grow: int) -> Bool[Tensor, "rows size size"]:
    wide = F.max_pool2d(high.float(), 2 * grow + 1, stride=1, padding=grow) > 0
    return torch.where(high.float().mean(dim=(1, 2), keepdim=True) < _MOST, wide, high)
