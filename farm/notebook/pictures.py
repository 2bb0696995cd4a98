"""Pictures as people hold them in Python, as bytes of a file."""

import io
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageOps

from farm.errors import InvalidImageError

Picture: TypeAlias = Image.Image | str | Path | bytes
"""A picture of Pillow's, the path of a file, or a file's bytes."""

_KEPT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""What a PNG holds as it is; other colours become RGB."""
_NOT_COLOURS = ("I", "F")


def picture_bytes(picture: Picture) -> bytes:
    """Bytes of a picture's file; an upright PNG for one of Pillow's.

    Raises:
        InvalidImageError: it is no picture, or its file cannot be read.
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, str | Path):
        return _read(Path(picture))
    if not isinstance(picture, Image.Image):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidImageError(
            f"found a picture of type {type(picture).__name__}, expected a PIL image, a path, or "
            "the bytes of a PNG, JPEG or WebP file; arrays become one by PIL.Image.fromarray"
        )
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in _NOT_COLOURS:
        raise InvalidImageError(
            f"found a picture of mode {upright.mode}, whose range is not known; convert it to "
            'RGB or L first, for example picture.convert("RGB")'
        )
    if upright.mode not in _KEPT_MODES:
        upright = upright.convert("RGB")
    buffer = io.BytesIO()
    upright.save(buffer, format="PNG")
    return buffer.getvalue()


def to_pillow(data: bytes) -> Image.Image:
    """A picture file of the farm's own as a picture of Pillow's, read to its end."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def _read(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidImageError(f"{path}: {reason}; check the picture's path") from error
