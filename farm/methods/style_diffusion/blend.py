"""Local blend: the target may differ only where the words' attention is (spec §7)."""

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
    scores: Float[Tensor, "rows size size"], threshold: float, height: int
) -> Bool[Tensor, "height height"]:
    """Where any row's score exceeds `threshold` times that row's greatest.

    Scores are non-negative; a row of zeros (a prompt without blend words) adds nothing.
    """
    large = F.interpolate(scores[None], size=(height, height), mode="nearest")[0]
    greatest = large.amax(dim=(1, 2), keepdim=True)
    return (large > threshold * greatest).any(dim=0)


def blend(
    latents: Float[Tensor, "2 channels height width"], mask: Bool[Tensor, "height width"]
) -> Float[Tensor, "2 channels height width"]:
    """Latents of (source, target) with the target's replaced by the source's outside `mask`."""
    return latents[:1] + mask * (latents - latents[:1])
