"""From a tensor to a file's bytes."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from farm.errors import EditFailedError, InvalidImageError, InvalidRequestError
from farm.images.decoding import ImageFormat


def encode_png(
    image: Float[Tensor, "channels height width"],
    *,
    text: Mapping[str, str] | None = None,
    alpha: Float[Tensor, "1 height width"] | None = None,
) -> bytes:
    """Encode as PNG of 8 bits: RGB from three channels, grey from one (masks and maps).

    With `alpha`, `image` is what shall be seen over white, as `decode_image` gives it, and the
    colours stored are those that show it: (image - (1 - alpha)) / alpha. What an edit changed
    where alpha is 0 stays invisible.

    Args:
        image: in [0, 1], clamped; rounded to the nearest of 256 levels.
        text: provenance: keyword (1 to 79 ASCII characters) to any text.
        alpha: the original's opacity.

    Raises:
        EditFailedError: the image has values that are not finite.
        InvalidImageError: neither 1 nor 3 channels.
        InvalidRequestError: a keyword that PNG does not allow.
    """
    info = PngInfo()
    for keyword, value in (text or {}).items():
        if not (1 <= len(keyword) <= 79 and keyword.isascii() and keyword.isprintable()):
            raise InvalidRequestError(
                f"found the PNG text keyword {keyword!r}, expected 1 to 79 printable ASCII "
                "characters; rename it"
            )
        info.add_itxt(keyword, value)
    return _save(_picture(image, alpha), "PNG", pnginfo=info)


def encode_jpeg(image: Float[Tensor, "channels height width"], *, quality: int = 95) -> bytes:
    """Encode as JPEG with colour at full resolution; what was transparent stays white.

    Raises:
        EditFailedError: the image has values that are not finite.
        InvalidImageError: neither 1 nor 3 channels.
    """
    return _save(_picture(image, None), "JPEG", quality=quality, subsampling=0)


def encode_webp(
    image: Float[Tensor, "channels height width"],
    *,
    quality: int = 90,
    alpha: Float[Tensor, "1 height width"] | None = None,
) -> bytes:
    """Encode as lossy WebP, with `alpha` as in `encode_png`.

    Raises:
        EditFailedError: the image has values that are not finite.
        InvalidImageError: neither 1 nor 3 channels.
    """
    return _save(_picture(image, alpha), "WEBP", quality=quality)


def thumbnail_data_uri(image: Float[Tensor, "channels height width"], size: int) -> str:
    """A small JPEG as a `data:` URI for reports; no side exceeds `size`, nothing is enlarged."""
    scale = size / max(image.shape[-2:])
    if scale < 1:
        target = [max(1, round(side * scale)) for side in image.shape[-2:]]
        image = F.interpolate(image[None], target, mode="bicubic", antialias=True)[0]
    encoded = base64.b64encode(encode_jpeg(image, quality=90)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"


def _picture(
    image: Float[Tensor, "channels height width"],
    alpha: Float[Tensor, "1 height width"] | None,
) -> Image.Image:
    channels = image.shape[0]
    if channels not in (1, 3):
        raise InvalidImageError(
            f"found {channels} channels, expected 3 (an image) or 1 (a mask); select them"
        )
    if alpha is None:
        pixels = _to_pixels(image)
        return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    opacity = _to_pixels(alpha)
    stored = torch.from_numpy(opacity).permute(2, 0, 1).to(image) / 255  # as readers will see it
    straight = torch.where(stored > 0, 1 - (1 - image) / stored.clamp_min(1 / 255), 1)
    pixels = _to_pixels(straight.expand(3, -1, -1))
    return Image.fromarray(np.concatenate([pixels, opacity], axis=-1))


def _to_pixels(
    image: Float[Tensor, "channels height width"],
) -> UInt8[np.ndarray, "height width channels"]:
    broken = int((~image.isfinite()).sum())
    if broken:
        raise EditFailedError(
            f"{broken:,} of the image's {image.numel():,} values are not finite, expected numbers "
            "in [0, 1]; try another seed or a lower learning rate"
        )
    levels = (image.detach().float().clamp(0, 1) * 255).round()
    return levels.to("cpu", torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _save(picture: Image.Image, file_format: ImageFormat, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()
