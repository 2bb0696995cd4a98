"""NS-LPIPS: LPIPS of what was not selected for editing (StyleDiffusion spec §8.1)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from farm.metrics.distance import InputRange, PairDistance
from farm.metrics.ns_mask import MASK_SIDE, Heads

_GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""torchvision's of red, green and blue: a grey v becomes 0.9999 v."""


@dataclass(frozen=True)
class NSRecipe:
    """How the mask is made and what LPIPS is fed.

    Attributes:
        heads: that the attention is averaged over (`average_attention`).
        whole_word: attention of all tokens of the word, not of `released_token` alone.
        grey_scale: factor of the mask from its three equal channels.
        input_range: of the pictures for LPIPS (`LearnedDistance`).
    """

    heads: Heads
    whole_word: bool
    grey_scale: float
    input_range: InputRange


RELEASED = NSRecipe(
    heads="upper", whole_word=False, grey_scale=sum(_GREY_WEIGHTS), input_range="unit"
)
"""The released program's arithmetic, whose numbers are published."""

CORRECTED = NSRecipe(heads="all", whole_word=True, grey_scale=1.0, input_range="symmetric")
"""All heads, all tokens of the word, and LPIPS fed as it was trained."""


def ns_name(distance: PairDistance) -> str:
    """What the figure is called: the name of its network is part of it."""
    return f"ns-{distance.name}"


def ns_pictures(
    image: Float[Tensor, "3 height width"],
    background: UInt8[Tensor, "side side"],
    recipe: NSRecipe,
) -> Float[Tensor, "3 side side"]:
    """A picture as NS-LPIPS sees it: 256 pixels wide, black where the word's attention is.

    The picture, in [0, 1], becomes 256 levels and is scaled by Pillow's antialiased bilinear; the
    mask multiplies softly, since the released program computes a threshold and drops it.
    """
    levels = (image.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy())
    small = picture.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BILINEAR)
    scaled = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    return scaled * ns_weight(background, recipe)


def ns_weight(
    background: UInt8[Tensor, "side side"], recipe: NSRecipe
) -> Float[Tensor, "1 side side"]:
    """The mask as numbers: 1 (or a little less, `grey_scale`) where all counts, 0 where nothing."""
    return background[None].float() / 255 * recipe.grey_scale


def ns_distance(
    source: Float[Tensor, "3 height width"],
    edited: Float[Tensor, "3 height width"],
    background: UInt8[Tensor, "side side"],
    distance: PairDistance,
    recipe: NSRecipe,
) -> float:
    """Distance of the two pictures' backgrounds; the mean over a set of pairs is NS-LPIPS.

    Args:
        source: in [0, 1].
        edited: in [0, 1].
        background: `farm.metrics.ns_mask.background` of the source's attention.
        distance: LPIPS with AlexNet for published numbers, built with `recipe.input_range`; another
            network's distance has its own name (`ns_name`).
        recipe: `RELEASED` or `CORRECTED`.
    """
    pair = [ns_pictures(image, background, recipe)[None] for image in (source, edited)]
    with torch.no_grad():
        return distance(*pair).item()
