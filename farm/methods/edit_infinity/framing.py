"""Between an original of any size and the picture that a layout stands for: crop, scale, back.

One transform for all stages (D4): the aspect ratio is kept, so a little of the longer side may be
left out, which an edit then never touches.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.images import Window

Picture = Float[Tensor, "channels height width"]
Fitted = Float[Tensor, "channels fitted_height fitted_width"]
Mask = Float[Tensor, "1 fitted_height fitted_width"]


@dataclass(frozen=True)
class Frame:
    """Where a layout's picture lies in an original.

    Attributes:
        size: height and width of the layout's picture.
        seen: the part of the original that it shows.
    """

    size: tuple[int, int]
    seen: Window


def frame_of(height: int, width: int, size: tuple[int, int]) -> Frame:
    """The largest centred part of an original with the layout's aspect ratio."""
    scale = min(height / size[0], width / size[1])
    seen_height = min(height, max(1, round(size[0] * scale)))
    seen_width = min(width, max(1, round(size[1] * scale)))
    top, left = (height - seen_height) // 2, (width - seen_width) // 2
    return Frame(size, Window(top, left, seen_height, seen_width))


def fit(picture: Picture, frame: Frame) -> Fitted:
    """What the layout shows of an original, or of a mask of its size; in [0, 1]."""
    return _resize(frame.seen.of(picture), frame.size).clamp(0, 1)


def unfit(edited: Fitted, original: Picture, frame: Frame, mask: Mask | None = None) -> Picture:
    """An edited picture back in the original, at the original's resolution.

    Args:
        edited: of the layout's size, in [0, 1].
        original: as handed in.
        frame: that `fit` had.
        mask: 1 where the edit counts; only the change is scaled and added, so that the original
            stays to the bit where the mask is 0. None: all that the layout shows is replaced.
    """
    seen = frame.seen
    size = (seen.height, seen.width)
    if mask is None:
        part = _resize(edited, size)
    else:
        change = mask * (edited - fit(original, frame))
        part = seen.of(original) + _resize(change, size)
    result = original.clone()
    seen.of(result).copy_(part.clamp(0, 1))
    return result


def _resize(picture: Picture, size: tuple[int, int]) -> Fitted:
    if tuple(picture.shape[-2:]) == size:
        return picture
    return F.interpolate(picture[None], size, mode="bicubic", antialias=True)[0]
