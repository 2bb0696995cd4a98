import hashlib
import io
import random
import resource
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from farm.errors import InvalidImageError
from farm.images import ImageLimits, decode_image, image_digest
from tests.farm.images.pictures import (
    chunk,
    gradient,
    jpeg_header,
    noise,
    png_header,
    save,
    webp_header,
    write_grey_png,
    write_png16,
)

HALF_LEVEL_16 = 0.5 / 65535


def tensor_of(pixels, largest=255):
    return torch.tensor(pixels.astype(np.float64)).permute(2, 0, 1).div(largest).float()


def assert_image(data, expected, *, atol=0.0, alpha=None):
    decoded = decode_image(data)
    assert decoded.image.dtype == torch.float32
    assert decoded.image.is_contiguous()
    torch.testing.assert_close(decoded.image, expected, rtol=0, atol=atol)
    if alpha is None:
        assert decoded.alpha is None
    else:
        torch.testing.assert_close(decoded.alpha, alpha, rtol=0, atol=atol)
    return decoded


# 1 float32 rounding of the division; everything below it is exact.
FLOAT = 1e-7


class TestFormats:
    def test_png_is_exact(self):
        pixels = noise(20, 31, 3)
        decoded = assert_image(save(Image.fromarray(pixels), "PNG"), tensor_of(pixels), atol=FLOAT)
        assert (decoded.original_format, decoded.original_mode) == ("PNG", "RGB")

    def test_the_whole_range_is_reached(self):
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[4:] = 255
        image = decode_image(save(Image.fromarray(pixels), "PNG")).image
        assert image.unique().tolist() == [0, 1]

    @pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
    def test_lossy_formats_are_near(self, file_format):
        pixels = gradient(64, 48)
        data = save(Image.fromarray(pixels), file_format, quality=95)
        # Pillow's own reader is the oracle for the exact levels ...
        oracle = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        decoded = assert_image(data, tensor_of(oracle), atol=FLOAT)
        assert decoded.original_format == file_format
        # ... and the picture that went in for the meaning: chroma at half resolution on a smooth
        # ramp costs some levels at the border.
        assert (decoded.image - tensor_of(pixels)).abs().mean() < 2 / 255

    def test_content_counts_and_not_the_name(self):
        pixels = noise(9, 9, 3)
        data = save(Image.fromarray(pixels), "WEBP", lossless=True)
        assert assert_image(data, tensor_of(pixels), atol=FLOAT).original_format == "WEBP"

    def test_a_multi_picture_jpeg_gives_its_first_picture(self):
        first, second = Image.fromarray(gradient(16, 24)), Image.new("RGB", (24, 16))
        data = save(first, "MPO", save_all=True, append_images=[second], quality=95)
        assert decode_image(data).original_format == "JPEG"
        assert (decode_image(data).image - tensor_of(gradient(16, 24))).abs().mean() < 2 / 255


class TestModes:
    def test_grey(self):
        pixels = noise(10, 12, 1)
        data = save(Image.fromarray(pixels[..., 0]), "PNG")
        assert_image(data, tensor_of(pixels).expand(3, -1, -1), atol=FLOAT)

    def test_one_bit(self):
        bits = noise(10, 12, 1) > 127
        data = save(Image.fromarray(bits[..., 0]), "PNG")
        assert Image.open(io.BytesIO(data)).mode == "1"
        assert_image(data, tensor_of(bits, 1).expand(3, -1, -1))

    def test_grey_jpeg(self):
        data = save(Image.fromarray(gradient(16, 16)[..., 0]), "JPEG", quality=100)
        image = decode_image(data).image
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[1], image[2])
        torch.testing.assert_close(
            image[:1], tensor_of(gradient(16, 16)[..., :1]), rtol=0, atol=2 / 255
        )

    def test_cmyk_jpeg(self):
        inks = (0.2, 0.5, 0.7, 0.3)
        pixels = np.full((16, 16, 4), [round(255 * ink) for ink in inks], dtype=np.uint8)
        data = save(Image.fromarray(pixels, mode="CMYK"), "JPEG", quality=100)
        assert Image.open(io.BytesIO(data)).mode == "CMYK"
        expected = torch.tensor([(1 - ink) * (1 - inks[3]) for ink in inks[:3]])
        # Rounding of four inks, of JPEG and of the product: two levels.
        assert_image(data, expected.view(3, 1, 1).expand(3, 16, 16), atol=2 / 255)

    def test_palette(self):
        picture = Image.fromarray(gradient(16, 16)).quantize(16)
        expected = np.asarray(picture.convert("RGB"))
        assert (
            assert_image(save(picture, "PNG"), tensor_of(expected), atol=FLOAT).original_mode == "P"
        )

    def test_palette_with_one_transparent_entry(self):
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([255, 0, 0, 0, 0, 255])
        picture.paste(1, (0, 0, 8, 4))
        expected = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1).repeat(1, 8, 8)
        expected[:, 4:] = 1  # the red half is transparent, so white shows
        alpha = torch.ones(1, 8, 8)
        alpha[:, 4:] = 0
        assert_image(save(picture, "PNG", transparency=0), expected, alpha=alpha)

    def test_palette_with_partly_transparent_entries(self):
        picture = Image.new("P", (8, 8), 0)
        picture.putpalette([255, 0, 0, 0, 0, 255])
        data = save(picture, "PNG", transparency=bytes([51, 255]))  # red at 51 / 255 = 0.2
        expected = torch.tensor([1.0, 0.8, 0.8]).view(3, 1, 1).expand(3, 8, 8)
        assert_image(data, expected, atol=FLOAT, alpha=torch.full((1, 8, 8), 0.2))

    @pytest.mark.parametrize("bits", [1, 2, 4])
    def test_shallow_grey_with_a_transparent_grey(self, bits):
        levels = 2**bits
        samples = np.arange(64).reshape(8, 8) % levels
        data = write_grey_png(samples, bits, transparent=1)
        alpha = torch.tensor(samples != 1)[None].float()
        grey = torch.tensor(samples / (levels - 1))[None].float()
        expected = torch.where(alpha > 0, grey, 1).expand(3, -1, -1)
        assert_image(data, expected, atol=FLOAT, alpha=alpha)

    @pytest.mark.parametrize("channels", [2, 4])
    @pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
    def test_alpha_is_composited_over_white_and_kept(self, channels, file_format):
        pixels = noise(12, 10, channels)
        options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
        data = save(Image.fromarray(pixels), file_format, **options)
        colour, alpha = tensor_of(pixels[..., :-1]), tensor_of(pixels[..., -1:])
        expected = (colour * alpha + 1 - alpha).expand(3, -1, -1)
        assert_image(data, expected, atol=2 * FLOAT, alpha=alpha)


class TestSixteenBits:
    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_every_bit_counts(self, channels, interlaced):
        samples = noise(13, 11, channels, dtype=np.uint16)
        samples[0, 0], samples[0, 1] = 0, 65535
        values = tensor_of(samples, 65535)
        colour, alpha = values, None
        if channels in (2, 4):
            colour, alpha = values[:-1], values[-1:]
            colour = colour * alpha + 1 - alpha
        decoded = assert_image(
            write_png16(samples, interlaced=interlaced),
            colour.expand(3, -1, -1),
            # Far below half a level of 16 bits: one lost bit would show.
            atol=HALF_LEVEL_16 / 10,
            alpha=alpha,
        )
        assert decoded.original_mode.endswith("16")

    def test_full_scale_is_one(self):
        samples = np.full((8, 8, 3), 65535, dtype=np.uint16)
        assert decode_image(write_png16(samples)).image.unique().tolist() == [1]

    def test_pillows_own_sixteen_bit_grey(self):
        samples = noise(9, 14, 1, dtype=np.uint16)
        data = save(Image.fromarray(samples[..., 0]), "PNG")
        expected = tensor_of(samples, 65535).expand(3, -1, -1)
        assert assert_image(data, expected, atol=HALF_LEVEL_16 / 10).original_mode == "I;16"

    @pytest.mark.parametrize("channels", [1, 3])
    def test_the_transparent_colour_is_compared_in_sixteen_bits(self, channels):
        samples = np.full((8, 8, channels), 0x1234, dtype=np.uint16)
        samples[4:, :, -1] = 0x1235  # differs in the low byte of one channel only
        data = write_png16(samples, transparent=[0x1234] * channels)
        alpha = torch.zeros(1, 8, 8)
        alpha[:, 4:] = 1
        expected = torch.ones(3, 8, 8)
        expected[:, 4:] = 0x1234 / 65535
        expected[-1 if channels == 3 else slice(None), 4:] = 0x1235 / 65535
        assert_image(data, expected, atol=HALF_LEVEL_16 / 10, alpha=alpha)

    def test_orientation_holds_for_sixteen_bits(self):
        samples = noise(8, 12, 3, dtype=np.uint16)
        exif = Image.Exif()
        exif[0x0112] = 6
        plain = write_png16(samples)
        data = plain[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[33:]
        turned = np.rot90(samples, k=-1)  # 6: the camera wants a quarter turn clockwise
        assert_image(data, tensor_of(turned, 65535), atol=HALF_LEVEL_16 / 10)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_is_applied_as_pillow_does(self, file_format, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(file_format, {})
        data = save(Image.fromarray(gradient(16, 24)), file_format, exif=exif, **options)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert_image(data, tensor_of(np.asarray(expected)), atol=FLOAT)

    def test_six_is_a_quarter_turn_clockwise(self):
        """A closed form beside Pillow's word: the red left column comes to the top row."""
        pixels = np.zeros((8, 12, 3), dtype=np.uint8)
        pixels[:, 0, 0] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        image = decode_image(save(Image.fromarray(pixels), "PNG", exif=exif)).image
        assert image.shape == (3, 12, 8)
        assert image[0, 0].tolist() == [1] * 8
        assert image[:, 1:].max() == 0

    def test_alpha_turns_with_the_image(self):
        pixels = noise(8, 12, 4)
        exif = Image.Exif()
        exif[0x0112] = 8
        decoded = decode_image(save(Image.fromarray(pixels), "PNG", exif=exif))
        expected = tensor_of(np.rot90(pixels, k=1)[..., 3:])
        torch.testing.assert_close(decoded.alpha, expected, rtol=0, atol=FLOAT)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_unknown_values_are_ignored(self, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = noise(8, 12, 3)
        assert_image(save(Image.fromarray(pixels), "PNG", exif=exif), tensor_of(pixels), atol=FLOAT)

    @pytest.mark.parametrize(
        "note", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0rubbish"]
    )
    def test_damaged_exif_is_ignored(self, note):
        pixels = noise(8, 12, 3)
        data = save(Image.fromarray(pixels), "WEBP", lossless=True, exif=note)
        assert_image(data, tensor_of(pixels), atol=FLOAT)


class TestRefusals:
    def refuse(self, data, *words, **limits):
        with pytest.raises(InvalidImageError) as raised:
            decode_image(data, limits=ImageLimits(**limits))
        message = str(raised.value)
        assert all(word in message for word in ("expected", ";", *words)), message

    def test_empty(self):
        self.refuse(b"", "empty", "0 bytes")

    @pytest.mark.parametrize(
        "data", [b"hello, world", b"\x89PNG", b"RIFF\0\0\0\0WAVEfmt ", b"\0" * 100, b"<svg/>"]
    )
    def test_not_an_image(self, data):
        self.refuse(data, "PNG, JPEG or WebP", repr(data[:12]))

    @pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM", "ICO"])
    def test_other_formats(self, file_format):
        self.refuse(save(Image.new("RGB", (16, 16)), file_format), "PNG, JPEG or WebP")

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated(self, file_format, share):
        data = save(Image.fromarray(noise(64, 64, 3)), file_format)
        self.refuse(data[: int(share * len(data))], file_format, "cannot be decoded")

    def test_truncated_sixteen_bits(self):
        data = write_png16(noise(32, 32, 3, dtype=np.uint16))
        self.refuse(data[: len(data) // 2], "cannot be decoded")

    @pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
    def test_animated(self, file_format):
        frames = [Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(3)]
        data = save(frames[0], file_format, save_all=True, append_images=frames[1:])
        self.refuse(data, "animated", "3 frames", "one frame")

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(png_header(100_000, 100_000, 8, 2) + chunk(b"IDAT", b"x\x9c"), id="png"),
            pytest.param(jpeg_header(65_500, 65_500), id="jpeg"),
            pytest.param(webp_header(16_384, 16_384), id="webp"),
        ],
    )
    def test_bombs_are_refused_by_their_header(self, data):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(InvalidImageError, match=r"pixels, expected at most|DecompressionBomb"):
            decode_image(data)
        unit = 1 if sys.platform == "darwin" else 1024
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
        # The smallest of the three would take 805 MB as uint8.
        assert grown < 100e6

    def test_text_bombs_are_refused(self):
        text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(80 * 2**20)))
        plain = save(Image.new("RGB", (16, 16)), "PNG")
        self.refuse(plain[:33] + text + plain[33:], "cannot be decoded")

    def test_limits(self):
        data = save(Image.fromarray(noise(20, 30, 3)), "PNG")
        decode_image(data, limits=ImageLimits(max_bytes=len(data), max_pixels=600, max_side=30))
        self.refuse(data, f"{len(data):,} bytes", max_bytes=len(data) - 1)
        self.refuse(data, "30×20 = 600 pixels", "599", max_pixels=599)
        self.refuse(data, "30×20", "29", max_side=29)
        self.refuse(data, "30×20", "at least 21", min_side=21)

    def test_the_smallest_and_narrowest_by_default(self):
        assert decode_image(save(Image.new("RGB", (8, 8)), "PNG")).image.shape == (3, 8, 8)
        self.refuse(save(Image.new("RGB", (7, 100)), "PNG"), "7×100", "at least 8")
        self.refuse(save(Image.new("RGB", (16_384, 8)), "PNG"), "16384×8", "16,383")

    @given(st.sampled_from(["PNG", "JPEG", "WEBP", "RGBA", "P", "PNG16", "LA16"]), st.randoms())
    @settings(max_examples=150, deadline=None)
    def test_damage_gives_an_image_or_our_error(self, kind, rng: random.Random):
        """Neither Pillow's exceptions nor its warnings, which are errors here, come through."""
        data = bytearray(SOUND[kind])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            image = decode_image(bytes(data), limits=ImageLimits(max_pixels=10_000)).image
        except InvalidImageError:
            return
        assert 0 <= image.min() <= image.max() <= 1

    def test_pillows_own_size_warning_is_not_raised(self):
        """Pillow warns from 89 million pixels; here such a file is refused without a warning."""
        data = save(Image.new("1", (10_000, 9_500)), "PNG")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(InvalidImageError, match="95,000,000"):
                decode_image(data)
        assert not seen


SOUND = {
    "PNG": save(Image.fromarray(noise(12, 12, 3)), "PNG"),
    "JPEG": save(Image.fromarray(gradient(16, 16)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    "WEBP": save(Image.fromarray(gradient(16, 16)), "WEBP"),
    "RGBA": save(Image.fromarray(noise(12, 12, 4)), "PNG"),
    "P": save(Image.fromarray(gradient(16, 16)).quantize(8), "PNG", transparency=b"\1\2\3"),
    "PNG16": write_png16(noise(9, 9, 3, dtype=np.uint16)),
    "LA16": write_png16(noise(9, 9, 2, dtype=np.uint16)),
}


def test_digest_is_sha256():
    # The published digest of "abc" (FIPS 180-2, appendix B.1).
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert image_digest(b"abc") == expected == hashlib.sha256(b"abc").hexdigest()
