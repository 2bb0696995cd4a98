"""Peak signal-to-noise ratio, of whole images or of the pixels in a mask."""

from jaxtyping import Bool, Float
from torch import Tensor

from farm.metrics.mse import mse

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
    error = mse(first, second, mask)
    return -10 * error.clamp_min(10 ** (-MAX_PSNR / 10)).log10()
