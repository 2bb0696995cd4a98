"""Results as OpenAI's clients want them: another size or format, a mask that keeps the rest."""

import re
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from farm.errors import InvalidImageError
from farm.images import decode_image, encode_jpeg, encode_png, encode_webp
from serve.limits import RequestLimits
from serve.problems import ProblemError

Format = Literal["png", "jpeg", "webp"]
PICTURES = ("image/png", "image/jpeg", "image/webp")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_SMALLEST = 8


@dataclass(frozen=True)
class Wish:
    """How a picture shall be given back.

    Attributes:
        file_format: of the file.
        size: width and height; None leaves it.
        quality: of JPEG and WebP, 0 to 100; None is theirs.
    """

    file_format: Format = "png"
    size: tuple[int, int] | None = None
    quality: int | None = None


def picture_type(data: bytes) -> str:
    """The media type of a file that was accepted as a picture, by its first bytes."""
    if data.startswith(b"\x89PNG"):
        return "image/png"
    return "image/jpeg" if data.startswith(b"\xff\xd8") else "image/webp"


def parse_size(text: str, limits: RequestLimits) -> tuple[int, int] | None:
    """`auto` is None, `256x128` is (256, 128).

    Raises:
        ProblemError: 422.
    """
    if text == "auto":
        return None
    match = _SIZE.fullmatch(text)
    width, height = (int(match.group(1)), int(match.group(2))) if match else (0, 0)
    sides_fit = min(width, height) >= _SMALLEST and max(width, height) <= limits.max_side
    if not sides_fit or width * height > limits.max_pixels:
        detail = f"size is auto, or like 256x256 with at most {limits.max_pixels:,} pixels"
        raise ProblemError(422, "invalid_size", detail, param="size")
    return width, height


def check_mask(mask: bytes, image: bytes, limits: RequestLimits) -> None:
    """Refuse a mask that cannot be used, before anything is computed.

    Raises:
        InvalidImageError: it is no picture, has no transparency, or has another size.
    """
    decoded = decode_image(mask, limits=limits.images)
    if decoded.alpha is None:
        raise InvalidImageError("mask has no transparency: where it is transparent is edited")
    wanted = decode_image(image, limits=limits.images).image.shape[1:]
    if decoded.alpha.shape[1:] != wanted:
        found, expected = (f"{s[1]}×{s[0]}" for s in (decoded.alpha.shape[1:], wanted))
        raise InvalidImageError(f"mask has {found} pixels, the image {expected}: make them equal")


def drawn_mask(mask: bytes) -> bytes:
    """The same mask as the farm's methods take one: white where it may change."""
    kept = decode_image(mask).alpha
    assert kept is not None, "check_mask has seen it"
    return encode_png(1 - kept)


def finished(edited: bytes, wish: Wish, *, original: bytes, mask: bytes | None) -> bytes:
    """An edit's picture in the form wished for.

    Args:
        edited: PNG, as the farm keeps it; given back as it is where nothing else is wished.
        wish: see `Wish`.
        original: what was edited.
        mask: transparent where it may change; elsewhere the original's own pixels are given.
    """
    if wish == Wish() and mask is None:
        return edited
    decoded = decode_image(edited)
    image, alpha = decoded.image, decoded.alpha
    if mask is not None:
        kept = decode_image(mask).alpha
        assert kept is not None, "check_mask has seen it"
        image = kept * decode_image(original).image + (1 - kept) * image
    if wish.size is not None:
        image = _resized(image, wish.size)
        alpha = None if alpha is None else _resized(alpha, wish.size)
    match wish.file_format:
        case "png":
            return encode_png(image, alpha=alpha)
        case "jpeg":
            return encode_jpeg(image, quality=95 if wish.quality is None else wish.quality)
        case "webp":
            quality = 90 if wish.quality is None else wish.quality
            return encode_webp(image, quality=quality, alpha=alpha)


def partial(preview: bytes, wish: Wish, *, original: bytes, mask: bytes | None) -> bytes:
    """A small picture of an edit on its way, in the form and size that its result will have."""
    height, width = decode_image(original).image.shape[-2:]
    grown = encode_png(_resized(decode_image(preview).image, (width, height)))
    return finished(grown, wish, original=original, mask=mask)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    width, height = size
    scaled = F.interpolate(image[None], (height, width), mode="bicubic", antialias=True)
    return torch.clamp(scaled[0], 0, 1)
