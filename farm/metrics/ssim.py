"""Structural similarity, of whole images or of the pixels in a mask."""

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

WINDOW_RADIUS = 5
"""Pixels that the Gaussian window reaches to each side."""


def ssim(
    first: Float[Tensor, "batch channels height width"],
    second: Float[Tensor, "batch channels height width"],
    mask: Float[Tensor, "#batch 1 height width"]
    | Bool[Tensor, "#batch 1 height width"]
    | None = None,
) -> Float[Tensor, " batch"]:
    """SSIM of images in [0, 1], one per sample: 1 for equal images.

    Wang et al. 2004 with their constants: Gaussian window of sigma 1.5 (11 pixels), K = 0.01 and
    0.03. With a mask the SSIM map is averaged over the masked pixels (a soft mask weighs them).
    Windows reach 5 pixels over the mask's border; erode it where what lies beyond must not count.
    An empty mask gives nan. The images need at least 6 pixels on each side.
    """
    similarity = ssim_map(first, second)
    if mask is None:
        return similarity.mean(dim=(1, 2, 3))
    weight = mask.to(similarity).expand_as(similarity)
    return (similarity * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))


def ssim_map(
    first: Float[Tensor, "batch channels height width"],
    second: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """The similarity around each pixel, mean over channels; borders are mirrored."""
    result = structural_similarity_index_measure(
        first, second, data_range=1.0, reduction="none", return_full_image=True
    )
    _, similarity = cast("tuple[Tensor, Tensor]", result)  # (batch, channels, height, width)
    return similarity.mean(dim=1, keepdim=True)
