"""Local blend: the target may differ only where the words' attention is (spec §7)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


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
) -> Bool[Tensor, "height height"]:
    """Where any row's score exceeds `threshold` times that row's greatest.

    Scores are non-negative; a row of zeros (a prompt without blend words) adds nothing. What is
    shielded in a row does not count there.
    """
    greatest = scores.amax(dim=(1, 2), keepdim=True)
    high = scores > threshold * greatest
    if shielded is not None:
        high = high & ~shielded
    large = F.interpolate(high[None].float(), size=(height, height), mode="nearest")[0]
    return large.any(dim=0)


def shield(
    scores: Float[Tensor, "rows size size"],
    kept: Float[Tensor, "words rows size size"],
    threshold: float,
) -> Bool[Tensor, "rows size size"]:
    """Where a word that stays is looked at, rather than the words that change (PAPER.md D10).

    A word counts if its map and that of the changing words are negatively correlated: what
    describes the very object that changes shares its place and shields nothing. It shields where
    it exceeds `threshold` of its own greatest, and the changing words relative to theirs.
    """
    tiny = torch.finfo(scores.dtype).tiny
    change = scores / scores.amax(dim=(1, 2), keepdim=True).clamp_min(tiny)
    stay = kept / kept.amax(dim=(2, 3), keepdim=True).clamp_min(tiny)
    centred = change - change.mean(dim=(1, 2), keepdim=True)
    together = (stay * centred).sum(dim=(2, 3), keepdim=True)  # the covariance's sign is enough
    return ((together < 0) & (stay > threshold) & (stay > change)).any(dim=0)


def blend(
    latents: Float[Tensor, "2 channels height width"], mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "2 channels height width"]:
    """Latents of (source, target) with the target's replaced by the source's outside `mask`."""
    return latents[:1] + mask * (latents - latents[:1])
