"""Pictures for the tests, and a small PNG writer for what Pillow cannot write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_ADAM7 = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]
_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6


def noise(height, width, channels, *, dtype=np.uint8, seed=0):
    high = np.iinfo(dtype).max
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (height, width, channels), dtype=dtype, endpoint=True)


def gradient(height, width):
    """Smooth RGB, which JPEG and WebP keep within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / (width - 1), 255 * y / (height - 1), 128 + 0 * x], axis=-1).astype(
        np.uint8
    )


def save(picture, file_format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width, height, bits, colour_type, *, interlaced=0):
    fields = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields)


def write_png16(samples, *, interlaced=False, transparent=None):
    """A PNG of 16 bits from (height, width, 1 to 4), using all five row filters in turn."""
    height, width, channels = samples.shape
    colour_type = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGBA}[channels]
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    raw = b"".join(_filtered(samples[y::dy, x::dx]) for y, x, dy, dx in passes)
    data = png_header(width, height, 16, colour_type, interlaced=int(interlaced))
    if transparent is not None:
        data += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    return data + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def write_grey_png(samples, bits, *, transparent):
    """An unfiltered grey PNG of 1, 2 or 4 bits with one transparent grey."""
    height, width = samples.shape
    bit_rows = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    packed = np.packbits(bit_rows.reshape(height, width * bits).astype(np.uint8), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    data = png_header(width, height, bits, _GREY) + chunk(b"tRNS", struct.pack(">H", transparent))
    return data + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def _filtered(samples):
    """Rows of big-endian bytes, filtered as chapter 9 of the PNG specification says."""
    height, width, channels = samples.shape
    if height == 0 or width == 0:
        return b""
    size = 2 * channels
    rows = samples.astype(">u2").tobytes()
    stride = width * size
    above, filtered = bytes(stride), []
    for index in range(height):
        row, kind = rows[index * stride : (index + 1) * stride], index % 5
        left, corner = bytes(size) + row[:-size], bytes(size) + above[:-size]
        neighbours = zip(row, left, above, corner, strict=True)
        filtered.append(bytes([kind]))
        filtered.append(bytes((x - _predict(kind, a, b, c)) % 256 for x, a, b, c in neighbours))
        above = row
    return b"".join(filtered)


def _predict(kind, left, above, corner):
    if kind == 4:
        guess = left + above - corner
        return min((left, above, corner), key=lambda value: abs(guess - value))
    return (0, left, above, (left + above) // 2)[kind]


def webp_header(width, height):
    """A lossless WebP that claims a size and holds no pixels."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(5)
    riff = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(riff)) + riff


def jpeg_header(width, height):
    """A JPEG that claims a size and ends where the pixels would begin."""
    whole = save(Image.new("RGB", (16, 16)), "JPEG")
    start = whole.index(b"\xff\xc0") + 5
    return whole[:start] + struct.pack(">HH", height, width) + whole[start + 4 :]
