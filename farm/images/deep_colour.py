"""PNGs of 16 bits per sample, with all their bits.

Pillow keeps 16 bits of plain grey only, and the high byte of everything else. But it undoes the
row filters and the interlacing for us, and which byte it keeps is a name it can be told.
"""

import io
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile

# PNG is big-endian. Read as if it were little-endian, each sample gives its low byte.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def is_deep(rawmode: str) -> bool:
    """Whether Pillow's name for the stored samples is one of PNG's four kinds of 16 bits."""
    return rawmode in ("I;16B", "LA;16B", "RGB;16B", "RGBA;16B")


def deep_samples(opened: ImageFile, rawmode: str, data: bytes) -> NDArray[np.uint16]:
    """RGB or RGBA, (height, width, 3 or 4), of the PNG `data`, which is loaded in `opened`."""
    values = _stored_samples(opened, rawmode, data)
    key = opened.info.get("transparency")
    if key is not None:  # one grey or colour, of all 16 bits, is transparent
        opaque = (values != np.asarray(key)).any(axis=-1, keepdims=True)
        values = np.concatenate([values, opaque * np.uint16(65535)], axis=-1)
    if values.shape[-1] < 3:
        values = np.concatenate([values[..., :1]] * 3 + [values[..., 1:]], axis=-1)
    return values


def _stored_samples(opened: ImageFile, rawmode: str, data: bytes) -> NDArray[np.uint16]:
    if rawmode == "I;16B":
        return np.asarray(opened, dtype=np.uint16)[..., None]
    if rawmode == "LA;16B":
        # Two samples of 16 bits are as wide as four of 8, so the header may say RGBA of 8 bits.
        header = data[12:24] + b"\x08\x06" + data[26:29]
        checksum = zlib.crc32(header).to_bytes(4, "big")
        disguised = PngImageFile(io.BytesIO(data[:12] + header + checksum + data[33:]))
        return np.array(disguised).view(">u2").astype(np.uint16)
    low = PngImageFile(io.BytesIO(data))
    low.tile = [low.tile[0]._replace(args=_LOW_BYTES[rawmode])]
    low.load()
    both = np.stack([np.asarray(opened), np.asarray(low)], axis=-1)  # (…, channels, 2 bytes)
    return both.view(">u2")[..., 0].astype(np.uint16)
