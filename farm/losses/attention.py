"""Distance of cross-attention maps."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def attention_loss(
    maps: Sequence[Float[Tensor, "batch _heads _pixels tokens"]],
    targets: Sequence[Float[Tensor, "batch _heads _pixels tokens"]],
) -> Float[Tensor, " batch"]:
    """Sum over layers of the mean squared difference of each sample's maps.

    L_att of StyleDiffusion (spec §6): the mean is over heads, pixels and all tokens.
    """
    layers = [
        (target - own).square().mean(dim=(1, 2, 3))
        for own, target in zip(maps, targets, strict=True)
    ]
    return torch.stack(layers).sum(dim=0)
