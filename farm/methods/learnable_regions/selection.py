"""Which of the finished pictures becomes the edit."""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.learnable_regions.config import SelectionConfig

_NEAREST = 3


def final_scores(
    text: Float[Tensor, " pictures"],
    image: Float[Tensor, " pictures"],
    config: SelectionConfig,
    verdict: Float[Tensor, " pictures"] | None = None,
) -> Float[Tensor, " pictures"]:
    """2 · cosine with the text + 1 · with the source; as released, of softmaxes (spec §5).

    The inpainting model's verdict, where it was asked, has a weight of its own (D14).
    """
    if config.rule == "released":
        text, image = text.softmax(dim=0), image.softmax(dim=0)
    scores = config.test_alpha * text + config.test_beta * image
    return scores if verdict is None else scores + config.test_gamma * verdict


def choose(
    text: Float[Tensor, " pictures"],
    image: Float[Tensor, " pictures"],
    config: SelectionConfig,
    verdict: Float[Tensor, " pictures"] | None = None,
) -> int:
    """Number of the winner: the best score; the first of equals.

    As released, the best among the three that are nearest to the text.
    """
    scores = final_scores(text, image, config, verdict)
    if config.rule == "released":
        nearest = text.argsort(descending=True, stable=True)[:_NEAREST]
        others = torch.ones_like(scores, dtype=torch.bool)
        others[nearest] = False
        scores = scores.masked_fill(others, -torch.inf)
    return int(scores.argmax())
