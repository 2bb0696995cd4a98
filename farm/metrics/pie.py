"""PIE-Bench's masks and its numbers for a region: as its code counts them, and corrected.

"released" is the arithmetic of the published tables (spec §8.2): both pictures are blackened
outside the region and compared over the whole frame, so the fewer pixels a region has, the smaller
its error. "corrected" compares the region's pixels alone. Both give nan for an empty region, and a
mean over cases leaves those out (`farm.metrics.pie_columns`).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.metrics.distance import PairDistance
from farm.metrics.mse import mse
from farm.metrics.pie_masks import SIDE, Convention, Mask
from farm.metrics.psnr import psnr
from farm.metrics.ssim import WINDOW_RADIUS, ssim, ssim_map

Pictures = Float[Tensor, "batch 3 height width"]


def region_mse(
    source: Pictures, edited: Pictures, weight: Mask, convention: Convention
) -> Float[Tensor, " batch"]:
    """Mean squared error in a region, per pair. Tables give it times 10 000."""
    if convention == "corrected":
        return mse(source, edited, weight)
    return _unless_empty(mse(source * weight, edited * weight), weight)


def region_psnr(
    source: Pictures, edited: Pictures, weight: Mask, convention: Convention
) -> Float[Tensor, " batch"]:
    """PSNR in dB of a region, per pair; equal pictures get 100 where the code gives infinity."""
    if convention == "corrected":
        return psnr(source, edited, weight)
    return _unless_empty(psnr(source * weight, edited * weight), weight)


def region_ssim(
    source: Pictures, edited: Pictures, weight: Mask, convention: Convention
) -> Float[Tensor, " batch"]:
    """SSIM of a region, per pair. Tables give it times 100.

    "released" drops a border of 5 pixels, as torchmetrics did until version 1.4.
    """
    if convention == "corrected":
        return ssim(source, edited, weight).double()
    r = WINDOW_RADIUS
    inner = ssim_map(source * weight, edited * weight)[:, :, r:-r, r:-r]
    return _unless_empty(inner.mean(dim=(1, 2, 3)).double(), weight)


def region_distance(
    source: Pictures,
    edited: Pictures,
    weight: Mask,
    distance: PairDistance,
    convention: Convention,
) -> Float[Tensor, " batch"]:
    """LPIPS (or what stands in for it) of a region, per pair. Tables give it times 1000.

    "corrected": the source takes the edit's pixels in the region alone, so that no black border
    enters the features, and the distance is divided by the region's share of the frame.
    """
    if convention == "corrected":
        changed = torch.lerp(source, edited, weight)
        share = weight.mean(dim=(1, 2, 3))
        return _unless_empty(distance(source, changed) / share.clamp_min(1e-12), weight).double()
    return _unless_empty(distance(source * weight, edited * weight), weight).double()


def last_square(
    image: Float[Tensor, "channels height width"], side: int = SIDE
) -> Float[Tensor, "channels {side} {side}"]:
    """The square at the right and bottom of a strip of pictures: what the benchmark evaluates.

    Raises:
        InvalidRequestError: the picture is smaller than that.
    """
    height, width = image.shape[-2:]
    if height < side or width < side:
        raise InvalidRequestError(
            f"found {width}x{height} pixels, expected at least {side}x{side}; the benchmark's "
            "pictures have that size"
        )
    return image[:, height - side :, width - side :]


def _unless_empty(values: Float[Tensor, " batch"], weight: Mask) -> Float[Tensor, " batch"]:
    """The values, or nan where a sample's region has no pixel."""
    empty = weight.sum(dim=(1, 2, 3)) == 0
    return torch.where(empty, torch.nan, values)
