import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from farm.errors import EditFailedError, InvalidImageError, InvalidRequestError
from farm.images import (
    decode_image,
    encode_jpeg,
    encode_png,
    encode_webp,
    thumbnail_data_uri,
)
from tests.farm.images.pictures import gradient, noise, save


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth():
    return torch.tensor(gradient(48, 64)).permute(2, 0, 1) / 255


def test_png_round_trip_is_exact_on_its_levels():
    image = decode_image(save(Image.fromarray(noise(11, 17, 3)), "PNG")).image
    assert torch.equal(decode_image(encode_png(image)).image, image)


def test_values_round_to_the_nearest_level_and_are_clamped():
    values = torch.tensor([-0.5, 0.0, 0.49 / 255, 0.51 / 255, 0.5, 254.4 / 255, 254.6 / 255, 1.5])
    image = values.repeat(3, 8, 1)
    pixels = np.asarray(Image.open(io.BytesIO(encode_png(image))))
    assert pixels[0, :, 0].tolist() == [0, 0, 0, 1, 128, 254, 255, 255]


def test_one_channel_becomes_a_grey_file():
    mask = rand(1, 9, 12)
    picture = Image.open(io.BytesIO(encode_png(mask)))
    assert picture.mode == "L"
    np.testing.assert_allclose(np.asarray(picture) / 255, mask[0], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("encode", [encode_jpeg, encode_webp])
def test_lossy_formats_are_near_and_quality_matters(encode):
    image = smooth()
    errors = [(decode_image(encode(image, quality=q)).image - image).abs().mean() for q in (10, 95)]
    assert errors[1] < 1.5 / 255  # JPEG's and WebP's own rounding on a smooth ramp
    assert errors[1] < errors[0]


def test_jpeg_keeps_colour_at_full_resolution():
    """One red column: with halved chroma it would bleed into its neighbours."""
    image = torch.zeros(3, 16, 16)
    image[0, :, 5] = 1
    decoded = decode_image(encode_jpeg(image, quality=100)).image
    assert (decoded - image).abs().max() < 4 / 255


def test_gradients_and_half_precision_are_no_obstacle():
    image = rand(3, 8, 8).requires_grad_()
    assert encode_png(image) == encode_png(image.detach())
    assert decode_image(encode_png(image.detach().bfloat16())).image.shape == (3, 8, 8)


@pytest.mark.parametrize("encode", [encode_png, encode_webp])
def test_alpha_is_given_back_and_the_picture_over_white_is_the_same(encode):
    pixels = noise(16, 16, 4)
    pixels[..., 3] = np.arange(256).reshape(16, 16)
    original = decode_image(save(Image.fromarray(pixels), "PNG"))
    options = {"quality": 100} if encode is encode_webp else {}
    again = decode_image(encode(original.image, alpha=original.alpha, **options))
    assert torch.equal(again.alpha, original.alpha)  # WebP keeps alpha exactly, too
    if encode is encode_png:
        # Colours are rounded before they are multiplied by alpha ≤ 1: at most half a level.
        torch.testing.assert_close(again.image, original.image, rtol=0, atol=0.5 / 255 + 1e-6)


def test_alpha_stores_straight_colours():
    """Pure red at 40 %: over white (1, 0.6, 0.6), in the file (255, 0, 0, 102)."""
    over_white = torch.tensor([1.0, 0.6, 0.6]).view(3, 1, 1).expand(3, 8, 8)
    data = encode_png(over_white, alpha=torch.full((1, 8, 8), 0.4))
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist() == [255, 0, 0, 102]


def test_what_is_fully_transparent_is_stored_as_white():
    data = encode_png(rand(3, 8, 8), alpha=torch.zeros(1, 8, 8))
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist() == [255, 255, 255, 0]


def test_a_mask_with_alpha_becomes_colour():
    data = encode_png(torch.full((1, 8, 8), 1.0), alpha=torch.ones(1, 8, 8))
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist() == [255, 255, 255, 255]


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "seed", "a b"]),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    )
)
@settings(max_examples=30, deadline=None)
def test_text_is_read_back_by_pillow(text):
    picture = Image.open(io.BytesIO(encode_png(torch.zeros(3, 8, 8), text=text)))
    assert picture.text == text


@pytest.mark.parametrize("keyword", ["", "k" * 80, "naïve", "a\nb"])
def test_keywords_that_png_forbids_are_refused(keyword):
    with pytest.raises(InvalidRequestError, match="1 to 79"):
        encode_png(torch.zeros(3, 8, 8), text={keyword: "x"})


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg, encode_webp])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_not_finite_are_refused(encode, value):
    image = rand(3, 8, 8)
    image[1, 2, 3] = value
    with pytest.raises(EditFailedError, match="1 of the image's 192 values are not finite"):
        encode(image)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(InvalidImageError, match="found 4 channels"):
        encode_png(rand(4, 8, 8))


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((3, 100, 200), 50, (25, 50)),
        ((3, 200, 100), 50, (50, 25)),
        ((3, 20, 30), 50, (20, 30)),  # never enlarged
        ((1, 64, 64), 32, (32, 32)),
        ((3, 8, 800), 20, (1, 20)),
    ],
)
def test_thumbnails_fit(shape, size, expected):
    uri = thumbnail_data_uri(torch.full(shape, 0.5), size)
    head, body = uri.split(",")
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(body)))
    assert (picture.height, picture.width) == expected
    # A grey stays this grey, within JPEG's rounding.
    assert np.abs(np.asarray(picture).astype(float) - 127.5).max() <= 2
