"""What CLIP says of an edited picture, as losses of embeddings."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidPromptError

_LEAST_SHIFT = 1e-4
"""Relative; embeddings of single precision differ by less when only rounding does."""


def clip_loss(
    edited: Float[Tensor, "*batch views embed"], text: Float[Tensor, " embed"]
) -> Float[Tensor, "*batch"]:
    """One minus the mean cosine of a picture's views with the text; 0 (parallel) to 2.

    L_clip of Learnable Regions (spec §2). Embeddings need not have unit length.
    """
    return 1 - F.cosine_similarity(edited, text, dim=-1).mean(dim=-1)


def text_direction(
    source: Float[Tensor, " embed"], target: Float[Tensor, " embed"]
) -> Float[Tensor, " embed"]:
    """From the source's text to the target's, checked once so that losses need not.

    Raises:
        InvalidPromptError: CLIP sees no difference.
    """
    shift = target - source
    if shift.norm() <= _LEAST_SHIFT * target.norm():
        raise InvalidPromptError(
            "source_prompt and target_prompt mean the same to CLIP (their embeddings differ by "
            f"{shift.norm() / target.norm():.1e} of their length): say what should change in words "
            "that the model knows"
        )
    return shift


def directional_loss(
    edited: Float[Tensor, "*batch views embed"],
    source: Float[Tensor, "views embed"],
    direction: Float[Tensor, " embed"],
) -> Float[Tensor, "*batch"]:
    """One minus the mean cosine of the picture's move with the text's; 0 to 2.

    L_dir of Learnable Regions (spec §2), after StyleGAN-NADA (arXiv:2108.00946). View n of the
    edited picture is compared with view n of the source. A picture that did not move at all has
    cosine 0.
    """
    return 1 - F.cosine_similarity(edited - source, direction, dim=-1).mean(dim=-1)


def text_similarity(
    embeds: Float[Tensor, "*batch embed"], text: Float[Tensor, " embed"]
) -> Float[Tensor, "*batch"]:
    """Cosine of each embedding with one other; -1 to 1."""
    return torch.cosine_similarity(embeds, text, dim=-1)
