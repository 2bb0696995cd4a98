"""Structure distance: how differently two pictures relate their own parts to each other."""

import torch
from jaxtyping import Float
from torch import Tensor

_MIN_PRODUCT = 1e-8


def self_similarity(
    keys: Float[Tensor, "batch tokens embed"],
) -> Float[Tensor, "batch tokens tokens"]:
    """Cosine similarity of every token's key with every other's, in [-1, 1].

    Keys of the last block of a DINO ViT with its heads concatenated, class token included
    (Splice, arXiv:2201.00424; StyleDiffusion spec §8.2). The product of two norms is held at 1e-8
    or more, as the benchmark's code does, so a key of zeros is similar to nothing.
    """
    norms = keys.norm(dim=-1)  # (batch, tokens)
    products = norms[:, :, None] * norms[:, None, :]
    return keys @ keys.transpose(1, 2) / products.clamp_min(_MIN_PRODUCT)


def structure_distance(
    first: Float[Tensor, "batch tokens embed"], second: Float[Tensor, "batch tokens embed"]
) -> Float[Tensor, " batch"]:
    """Mean squared difference of two self-similarities, one per sample: 0 (equal keys) to 4.

    Tables give it times 1000.
    """
    return torch.mean((self_similarity(first) - self_similarity(second)) ** 2, dim=(1, 2))


def joined_heads(
    keys: Float[Tensor, "batch heads tokens head_dim"],
) -> Float[Tensor, "batch tokens embed"]:
    """A token's keys of all heads, one after the other."""
    return keys.transpose(1, 2).flatten(2)
