"""Peak signal-to-noise ratio, of whole images or of the pixels in a mask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_PSNR = 100.0
"""In dB; what equal images get. It is the mean squared error being held at 1e-10 or more."""


def psnr(
    first: Float[Tensor, "batch channels height width"],
    second: Float[Tensor, "batch channels height width"],
    mask: Float[Tensor, "#batch 1 height width"]
    | Bool[Tensor, "#batch 1 height width"]
    | None = None,
) -> Float[Tensor, " batch"]:
    """10 log10(1 / MSE) in dB for images in [0, 1], one per sample, at most `MAX_PSNR`.

    With a mask the error is averaged over the masked pixels only (a soft mask weighs them), unlike
    benchmarks that blacken the rest and average over the frame. A sample whose mask is empty has no
    PSNR: nan. Computed in float64.
    """
    error = (first.double() - second.double()).square().mean(dim=1, keepdim=True)
    weight = torch.ones_like(error) if mask is None else mask.to(error).expand_as(error)
    mse = (error * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return -10 * mse.clamp_min(10 ** (-MAX_PSNR / 10)).log10()
