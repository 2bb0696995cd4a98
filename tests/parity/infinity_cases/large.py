"""A whole edit at a megapixel."""

import numpy as np
import pytest
import torch

from farm.backbones.infinity.loss import margins_of
from farm.backbones.infinity.packing import unpack_bits
from farm.backbones.infinity.quantiser import (
    accumulate,
    codes_of,
    resize,
    teacher_inputs,
)
from farm.backbones.infinity.transformer import PassOptions
from farm.methods.edit_infinity.client import (
    EditQuery,
)
from farm.methods.edit_infinity.codes import SourceCodes
from farm.methods.edit_infinity.smoothing import (
    above_threshold,
    cells_of,
    is_large,
    plotted,
    released_cells_of,
    weights,
)
from tests.parity.infinity_cases.common import (
    CODES,
    DECODER,
    LOGITS,
    MAP,
    as_bgr,
    assert_close,
    assert_same_bits,
    client_of,
    mean_pool,
)


@pytest.fixture(scope="module")
def large_source():
    """Codes of the large picture by folder, encoded once."""
    found = {}

    def source(folder, vectors):
        if folder.path not in found:
            schedule = folder.schedule("1M")
            small = vectors["image1M_thumb_u8"].permute(2, 0, 1).float() / 255
            image = resize_by_repeating(small, schedule.image_size)
            features, bits = client_of(folder, True, "1M").encode(image, schedule)
            nothing = torch.zeros(image.shape, dtype=torch.uint8)
            found[folder.path] = SourceCodes(schedule.name, features, bits, nothing)
        return found[folder.path]

    return source


def resize_by_repeating(picture, size):
    times = (size[0] // picture.shape[1], size[1] // picture.shape[2])
    return picture.repeat_interleave(times[0], 1).repeat_interleave(times[1], 2)


def test_large_source(large, large_source):
    folder, _, vectors = large
    codes = large_source(folder, vectors)
    assert np.array_equal(codes.bits.numpy(), vectors.array("src_bits_packed"))
    schedule = folder.schedule("1M")
    bits = unpack_bits(codes.bits[None], schedule, folder.vae.config.bits)
    with torch.no_grad():  # these means are of values that were not clamped
        decoded = folder.vae.decoder(accumulate(bits, schedule).codes.contiguous())
    assert_close(mean_pool(decoded, 16), vectors["src_rec_mean16"], DECODER)


def test_large_mask_and_weight(large):
    folder, _, vectors = large
    region = large_region(folder, vectors)
    expected = vectors["weight64"]
    found = weights(cells_of(region, *expected.shape), "released", large=is_large(region))
    assert torch.equal(found, expected)


def large_region(folder, vectors):
    return ~vectors.unpacked("mask_packed", folder.schedule("1M").image_size)


def test_large_edit(large, large_source):
    """Generation that keeps the source outside the mask: guidance 4, temperature 0.5, greedy."""
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    region = large_region(folder, vectors)
    cells = cells_of(region, *schedule.latent_size)
    query = EditQuery(
        text=folder.text[1],
        bits=codes.bits,
        weight=weights(cells, "released", large=is_large(region)),
        guidance=(4.0,) * schedule.num_scales,
        temperature=(0.5,) * schedule.num_scales,
        seed=0,
        top_k=1,
        top_p=0.0,
    )
    client = client_of(folder, biases, "1M")
    image, bits = client.edit(query, schedule)
    assert np.array_equal(bits.numpy(), vectors.array("edit_bits_packed"))
    # The stored picture was decoded from channels-last memory by two threads: so decoded, ours is
    # the same to the byte. Over a million pixels that memory makes normalisation wrong by up to
    # 0.003 of the range [-1, 1] (measured in double precision), a third of a level.
    means = mean_pool(as_bgr(image[None]).permute(0, 3, 1, 2).float(), 16)
    assert_close(means, vectors["edit_img_mean16"], 0.35)
    expected = vectors["edit_img_crop"]  # README: this window of the picture
    found = as_bgr(image[None])[0, 480:528, 560:608]
    difference = (found.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert difference.float().mean() < 0.1
    blended = kept_codes(folder, schedule, codes.bits, bits, query.weight)
    assert_close(blended, vectors["edit_codes"], 2 * CODES)


def kept_codes(folder, schedule, source, drawn, weight):
    channels = folder.vae.config.bits
    both = [unpack_bits(packed[None], schedule, channels) for packed in (source, drawn)]
    total = 0
    for ours_, theirs in zip(*both, strict=True):
        size = schedule.latent_size
        total = total + weight * resize(codes_of(ours_), size)
        total = total + (1 - weight) * resize(codes_of(theirs), size)
    return total


def test_large_edit_is_decided_clearly(large, large_source):
    """Logits along the stored edit: those of scale 9, and the smallest margins everywhere."""
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    channels = folder.vae.config.bits
    drawn = unpack_bits(vectors["edit_bits_packed"][None], schedule, channels)
    source = unpack_bits(codes.bits[None], schedule, channels)
    weight = vectors["weight64"]
    total, history = 0, []
    for ours_, theirs in zip(source, drawn, strict=True):
        total = total + weight * resize(codes_of(ours_), schedule.latent_size)
        total = total + (1 - weight) * resize(codes_of(theirs), schedule.latent_size)
        history.append(total)
    known = accumulate(drawn, schedule)
    inputs = teacher_inputs(type(known)(known.bits, tuple(history)), schedule)
    uncond = folder.transformer.unconditional(len(folder.text[1]))
    both = []
    for text in (folder.text[1], uncond):
        with torch.no_grad():
            given = folder.transformer.condition(text[None], biases=biases)
            options = PassOptions(biases=biases)
            both.append(folder.transformer(given, inputs, schedule, options)[0])
    logits = (4 * both[0] - 3 * both[1]) / 0.5
    scales = logits.split(schedule.lengths, dim=1)
    expected = vectors["edit_logits_scale9_first64"]
    assert_close(scales[9][0, : len(expected)], expected, 14 * LOGITS)
    margins = torch.stack([margins_of(scale).abs().min() for scale in scales])
    assert_close(margins.double(), vectors["edit_min_margin_per_scale"], 28 * LOGITS)


def test_large_attention_and_automatic_mask(large, large_source):
    folder, biases, vectors = large
    schedule, codes = folder.schedule("1M"), large_source(folder, vectors)
    expected = vectors["attn_final64_1M"]
    span = list(range(*vectors["attn_span"].tolist()))
    found = client_of(folder, biases, "1M").word_attention(
        folder.text[0], span, codes.bits, schedule, tuple(expected.shape)
    )
    assert_close(found, expected, MAP)
    threshold = expected.min() + 0.5 * (expected.max() - expected.min())
    assert threshold.item() == pytest.approx(vectors["attn_thr"].item(), abs=MAP)
    region = above_threshold(expected, 0.5)
    assert_same_bits(~region, vectors["attn_mask64"].bool())
    ideal = weights(region, "released", large=is_large(region))
    assert torch.equal(ideal, vectors["attn_ideal_weight64"])
    picture = plotted(region)
    assert list(picture.shape) == vectors["attn_png_size"].tolist()
    rows, columns = vectors["attn_png_weight64"].shape
    large_ = int(released_cells_of(picture, 4, 4).sum()) >= 6
    distorted = weights(released_cells_of(picture, rows, columns), "released", large=large_)
    assert torch.equal(distorted, vectors["attn_png_weight64"])
