"""Mean squared error, of whole images or of the pixels in a mask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mse(
    first: Float[Tensor, "batch channels height width"],
    second: Float[Tensor, "batch channels height width"],
    mask: Float[Tensor, "#batch 1 height width"]
    | Bool[Tensor, "#batch 1 height width"]
    | None = None,
) -> Float[Tensor, " batch"]:
    """Mean of the squared differences of samples in [0, 1], one per sample of the batch.

    With a mask it is the mean over the masked pixels only (a soft mask weighs them); an empty mask
    gives nan. Computed in float64. Tables give it times 10 000.
    """
    error = (first.double() - second.double()).square().mean(dim=1, keepdim=True)
    weight = torch.ones_like(error) if mask is None else mask.to(error).expand_as(error)
    return (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
