"""Between an original of any size and the square that a model works on."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidImageError, InvalidRequestError
from farm.images.decoding import DecodedImage

FitMode = Literal["crop", "pad"]


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Float[Tensor, "channels height width"]) -> Float[Tensor, "channels h w"]:
        """The view of `image` inside this window."""
        return image[:, self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Placement:
    """Where an original lies in the model's square.

    Attributes:
        size: side of the square.
        height: height of the original.
        width: width of the original.
        seen: the part of the original that the model sees.
        square: where that part lies in the square; the rest of the square is padding.
    """

    size: int
    height: int
    width: int
    seen: Window
    square: Window


def fit_to_model(
    image: Float[Tensor, "channels height width"], size: int, *, mode: FitMode = "crop"
) -> tuple[Float[Tensor, "channels {size} {size}"], Placement]:
    """Bring an image, or a mask of the same resolution, to the square that a model works on.

    "crop" takes the centre square, with offset floor((long - short) / 2) as StyleDiffusion loads
    images, and scales it. "pad" scales the whole image and repeats its border to fill the square.
    Scaling is antialiased bicubic (Keys' kernel with a = -0.5, as Pillow's), clamped to [0, 1]; an
    image that already fits comes back unchanged to the bit.

    Raises:
        InvalidRequestError: `size` is not positive or `mode` is unknown.
    """
    if size < 1 or mode not in get_args(FitMode):
        raise InvalidRequestError(
            f"found size {size} and mode {mode!r}, expected a size of at least 1 pixel and one of "
            f"{get_args(FitMode)}; change the model set's image settings"
        )
    placement = _place(image.shape[-2], image.shape[-1], size, mode)
    return _fit(image, placement), placement


def restore(
    edited: Float[Tensor, "3 size size"],
    original: DecodedImage,
    placement: Placement,
    mask: Float[Tensor, "1 size size"] | None = None,
) -> Float[Tensor, "3 height width"]:
    """Bring the model's edited square back into the original, at the original's resolution.

    Without a mask the scaled square replaces what the model saw. With a mask (1 = edit; feather it
    first for soft borders) only the change is scaled and added,
    original + up(mask · (edited - source)), so whatever lies outside keeps every detail to the bit.
    What a crop left out is never touched. In [0, 1]; encode it with `original.alpha`.

    Raises:
        InvalidImageError: `edited`, `mask` or `original` is not what `placement` was made for.
    """
    _check_shapes(edited, original, placement, mask)
    seen, square = placement.seen, placement.square
    edited = edited.to(original.image)
    if mask is None:
        part = _resize(square.of(edited), seen.height, seen.width)
    else:
        change = mask.to(original.image) * (edited - _fit(original.image, placement))
        up = _resize(square.of(change), seen.height, seen.width)
        part = seen.of(original.image) + up
    result = original.image.clone()
    seen.of(result).copy_(part.clamp(0, 1))
    return result


def _place(height: int, width: int, size: int, mode: FitMode) -> Placement:
    if mode == "crop":
        side = min(height, width)
        seen = Window((height - side) // 2, (width - side) // 2, side, side)
        return Placement(size, height, width, seen, Window(0, 0, size, size))
    scale = size / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    square = Window(top, left, inner_height, inner_width)
    return Placement(size, height, width, Window(0, 0, height, width), square)


def _fit(
    image: Float[Tensor, "channels height width"], placement: Placement
) -> Float[Tensor, "channels size size"]:
    square = placement.square
    scaled = _resize(placement.seen.of(image), square.height, square.width).clamp(0, 1)
    right = placement.size - square.left - square.width
    bottom = placement.size - square.top - square.height
    return F.pad(scaled, (square.left, right, square.top, bottom), mode="replicate")


def _resize(
    image: Float[Tensor, "channels height width"], height: int, width: int
) -> Float[Tensor, "channels {height} {width}"]:
    if image.shape[-2:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]


def _check_shapes(
    edited: Float[Tensor, "..."],
    original: DecodedImage,
    placement: Placement,
    mask: Float[Tensor, "..."] | None,
) -> None:
    square = (placement.size, placement.size)
    pairs = {
        "edited": (edited.shape, (3, *square)),
        "mask": ((1, *square) if mask is None else mask.shape, (1, *square)),
        "original": (original.image.shape, (3, placement.height, placement.width)),
    }
    for name, (found, expected) in pairs.items():
        if tuple(found) != expected:
            raise InvalidImageError(
                f"{name} has shape {tuple(found)}, expected {expected}; "
                "restore with the placement that fit_to_model gave for this image"
            )
