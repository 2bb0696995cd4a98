"""From a file's bytes to a tensor, or to an error that says what is wrong with the file."""

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from farm.errors import InvalidImageError
from farm.images.deep_colour import deep_samples, is_deep

ImageFormat = Literal["PNG", "JPEG", "WEBP"]

# What Pillow's readers raise on broken files. Warning is here because whoever turns warnings into
# errors (pytest does) must still meet our error and no other.
_PILLOW_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
# Pillow compares the transparent grey of PNGs of 2 and 4 bits, which it reads as it is stored,
# with samples that it has scaled to 8 bits.
_SHALLOW_GREY = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class ImageLimits:
    """What is accepted; checked on the file's header, before any pixel is decoded.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height; float32 RGB takes 12 bytes for each.
        min_side: smallest width and height, in pixels.
        max_side: largest width and height; the default is WebP's own limit, so that what was
            accepted can be given back in any format.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 32_000_000
    min_side: int = 8
    max_side: int = 16_383


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An upright image, and what is needed to give the result back in the same form.

    Attributes:
        image: RGB in [0, 1], composited over white.
        alpha: opacity in [0, 1], or None where the file has no transparency.
        original_format: what the content was, whatever the file was called.
        original_mode: Pillow's mode of the file, with ";16" where that hides samples of 16 bits.
    """

    image: Float[Tensor, "3 height width"]
    alpha: Float[Tensor, "1 height width"] | None
    original_format: ImageFormat
    original_mode: str


def image_digest(data: bytes) -> str:
    """SHA-256 of the file's bytes, in hexadecimal: the image's identity in requests and keys."""
    return hashlib.sha256(data).hexdigest()


def decode_image(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Decode a PNG, JPEG or WebP file, known by its content.

    EXIF orientation is applied. Grey, palette, 1-bit and CMYK become RGB; samples of 16 bits keep
    all of them (65535 is 1). CMYK is converted as (1 - ink)(1 - black), without a profile. Of a
    JPEG that holds several pictures, as phones write, the first is taken.

    Raises:
        InvalidImageError: not one of the three formats, outside the limits, animated, or broken.
    """
    _check_bytes(data, limits)
    found = _format_of(data)
    opened = _open(data, found)
    _check_header(opened, limits)
    rawmode = _rawmode(opened)
    mode = f"{opened.mode};16" if is_deep(rawmode) and ";" not in opened.mode else opened.mode
    try:
        samples = _samples(opened, rawmode, data)
    except _PILLOW_ERRORS as error:
        raise _unreadable(found, data, error) from error
    samples = _upright(samples, _orientation(opened))
    if len(samples) == 3:
        return DecodedImage(samples, None, found, mode)
    alpha = samples[3:].contiguous()
    return DecodedImage(samples[:3] * alpha + (1 - alpha), alpha, found, mode)


def _check_bytes(data: bytes, limits: ImageLimits) -> None:
    if not data:
        raise InvalidImageError(
            "found an empty file (0 bytes), expected a PNG, JPEG or WebP image; check the upload"
        )
    if len(data) > limits.max_bytes:
        raise InvalidImageError(
            f"the file has {len(data):,} bytes, expected at most {limits.max_bytes:,}; "
            "make the image smaller or compress it more"
        )


def _format_of(data: bytes) -> ImageFormat:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise InvalidImageError(
        f"found a file of {len(data):,} bytes that begins with {data[:12]!r}, expected the content "
        "of a PNG, JPEG or WebP image; convert it to one of these (a new name alone does not help)"
    )


def _open(data: bytes, found: ImageFormat) -> ImageFile:
    """Read the header only.

    `Image.open` would also warn of size, by limits that are global to the process; ours are not.
    """
    readers = {"PNG": PngImageFile, "JPEG": JpegImageFile, "WEBP": WebPImageFile}
    try:
        return readers[found](io.BytesIO(data))
    except _PILLOW_ERRORS as error:
        raise _unreadable(found, data, error) from error


def _unreadable(found: ImageFormat, data: bytes, error: Exception) -> InvalidImageError:
    return InvalidImageError(
        f"found a {found} file of {len(data):,} bytes that cannot be decoded "
        f"({type(error).__name__}: {error}), expected a whole, undamaged image; "
        "upload it again or save it anew"
    )


def _check_header(opened: ImageFile, limits: ImageLimits) -> None:
    width, height = opened.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        raise InvalidImageError(
            f"the image has {width}×{height} = {width * height:,} pixels, expected at most "
            f"{limits.max_pixels:,} and no side over {limits.max_side:,}; scale it down"
        )
    if min(width, height) < limits.min_side:
        raise InvalidImageError(
            f"the image has {width}×{height} pixels, expected at least {limits.min_side} on each "
            "side; use a larger image"
        )
    frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        raise InvalidImageError(
            f"found an animated {opened.format} of {frames} frames, expected a still image; "
            "save one frame as an image of its own"
        )


def _rawmode(opened: ImageFile) -> str:
    """How a PNG stores its samples, in Pillow's words; "" for the other formats."""
    arguments = opened.tile[0].args if opened.tile else None
    return arguments if isinstance(arguments, str) else ""


def _samples(
    opened: ImageFile, rawmode: str, data: bytes
) -> Float[Tensor, "channels height width"]:
    """RGB or RGBA in [0, 1]; colours are not yet multiplied by alpha."""
    opened.load()
    if is_deep(rawmode):
        values, largest = deep_samples(opened, rawmode, data), 65535
    else:
        if rawmode in _SHALLOW_GREY and "transparency" in opened.info:
            opened.info["transparency"] *= _SHALLOW_GREY[rawmode]
        values = np.asarray(opened.convert("RGBA" if opened.has_transparency_data else "RGB"))
        largest = 255
    return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1) / largest


def _orientation(opened: ImageFile) -> int:
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:
        return 1  # the pixels are sound; a damaged note beside them is no reason to refuse
    return orientation if isinstance(orientation, int) else 1


def _upright(
    image: Float[Tensor, "channels height width"], orientation: int
) -> Float[Tensor, "channels upright_height upright_width"]:
    """EXIF tag 0x0112: 5 to 8 swap the axes first, then all may flip."""
    flips = {2: (-1,), 3: (-1, -2), 4: (-2,), 6: (-1,), 7: (-1, -2), 8: (-2,)}
    turned = image.mT if orientation in (5, 6, 7, 8) else image
    return turned.flip(flips.get(orientation, ())).contiguous()
