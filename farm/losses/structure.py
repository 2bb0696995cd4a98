"""How alike two pictures are built, whatever they show: self-similarity of a network's tokens."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_LEAST_PRODUCT = 1e-8


def self_similarity(
    tokens: Float[Tensor, "*batch places width"],
) -> Float[Tensor, "*batch places places"]:
    """Cosines of each token with each other, K_ab = <t_a, t_b> / max(|t_a| |t_b|, 1e-8).

    Splicing ViT Features (arXiv:2201.00424), eq. 4; Learnable Regions spec §2.
    """
    norms = tokens.norm(dim=-1)
    products = (norms[..., :, None] * norms[..., None, :]).clamp(min=_LEAST_PRODUCT)
    return tokens @ tokens.transpose(-2, -1) / products


def structure_loss(
    edited: Float[Tensor, "*batch places width"], source: Float[Tensor, "places width"]
) -> Float[Tensor, "*batch"]:
    """Mean squared difference of the self-similarities; 0 to 4, 0 for equal pictures.

    L_str of Learnable Regions (spec §2).
    """
    found, wanted = self_similarity(edited), self_similarity(source)
    return F.mse_loss(found, wanted.expand_as(found), reduction="none").mean(dim=(-2, -1))
