"""PIE-Bench's masks, and the regions that they make of a picture."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError

Convention = Literal["released", "corrected"]
Region = Literal["whole", "unedited", "edited"]
Mask = Float[Tensor, "batch 1 height width"]

SIDE = 512


def decode_runs(
    runs: Sequence[int], *, height: int = SIDE, width: int = SIDE, border: bool = True
) -> Float[Tensor, "1 {height} {width}"]:
    """A mask, 1 = edit, from runs `start, length, start, length, …` over its rows.

    A run past the end is cut off there, as the benchmark's code does. `border` sets the outermost
    rows and columns to 1, as that code does; the corrected convention does not.

    Raises:
        InvalidRequestError: an odd number of entries, or a start or length that cannot be.
    """
    if len(runs) % 2:
        raise InvalidRequestError(
            f"found {len(runs)} numbers, expected pairs of start and length; one is missing"
        )
    mask = torch.zeros(height * width)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        if not 0 <= start < height * width or length < 0:
            raise InvalidRequestError(
                f"found a run of {length} from {start}, expected a start in [0, {height * width}) "
                "and a length of 0 or more"
            )
        mask[start : start + length] = 1
    mask = mask.view(1, height, width)
    if border:
        mask[:, [0, -1]] = 1
        mask[:, :, [0, -1]] = 1
    return mask


def encode_runs(mask: Float[Tensor, "1 height width"]) -> list[int]:
    """Runs of a mask as the benchmark publishes them: inverse of `decode_runs` without border."""
    flat = torch.cat([torch.zeros(1), (mask > 0.5).float().flatten(), torch.zeros(1)])
    steps = flat.diff()
    starts, ends = ((steps == sign).nonzero()[:, 0].tolist() for sign in (1, -1))
    return [n for start, end in zip(starts, ends, strict=True) for n in (start, end - start)]


def weight_of(mask: Mask, region: Region) -> Mask:
    """1 where a pixel belongs to the region; `mask` is 1 where the picture is to be edited."""
    if region == "whole":
        return torch.ones_like(mask)
    return mask if region == "edited" else 1 - mask
