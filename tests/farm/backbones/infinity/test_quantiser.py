import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.backbones.infinity.packing import pack_bits, packed_length, unpack_bits
from farm.backbones.infinity.quantiser import (
    accumulate,
    codes_of,
    quantise,
    resize,
    shrink,
    teacher_inputs,
    teacher_targets,
    to_cells,
    to_tokens,
)
from farm.backbones.infinity.schedules import own_schedule
from farm.errors import InvalidRequestError

SCHEDULE = own_schedule([(1, 1), (2, 3), (4, 6)], cell=1, stride=8)


def features(schedule=SCHEDULE, bits=5, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, bits, *schedule.latent_size, generator=generator)


def test_codes_have_unit_norm_and_the_signs_of_their_bits():
    bits = features() > 0
    codes = codes_of(bits)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(2, 4, 6))
    assert torch.equal(codes > 0, bits)


def test_a_code_of_full_size_is_found_again():
    """One scale alone: bits are signs, and the sum is their code."""
    schedule = own_schedule([(1, 1)], cell=1, stride=8)
    wanted = features(schedule) > 0
    assert torch.equal(quantise(codes_of(wanted), schedule).bits[0], wanted)


def test_residual_bits_are_the_signs_of_what_is_left():
    found = quantise(features(), SCHEDULE)
    left = features() - found.history[1]
    assert torch.equal(found.bits[2], left > 0)
    middle = features() - found.history[0]
    assert torch.equal(found.bits[1], torch.nn.functional.adaptive_avg_pool2d(middle, (2, 3)) > 0)


def test_known_bits_give_the_sum_that_quantising_gave():
    found = quantise(features(), SCHEDULE)
    again = accumulate(found.bits, SCHEDULE)
    for one, other in zip(found.history, again.history, strict=True):
        assert torch.equal(one, other)


def test_noise_is_seen_by_later_scales_alone_and_repaired_by_them():
    clean = quantise(features(), SCHEDULE)
    flips = [torch.zeros_like(b) for b in clean.bits]
    assert all(
        torch.equal(a, b)
        for a, b in zip(quantise(features(), SCHEDULE, flips).bits, clean.bits, strict=True)
    )
    flips[0][:] = True
    noisy = quantise(features(), SCHEDULE, flips)
    assert torch.equal(noisy.bits[0], clean.bits[0]), "targets stay the true ones"
    torch.testing.assert_close(noisy.history[0], -clean.history[0])
    assert torch.equal(noisy.bits[2], features() - noisy.history[1] > 0)


@pytest.mark.parametrize("cell", [1, 2])
def test_tokens_are_rows_of_cells(cell):
    cells = torch.arange(2 * 3 * 4 * 6).float().view(2, 3, 4, 6)
    tokens = to_tokens(cells, cell)
    assert tokens.shape == (2, 24 // cell**2, 3 * cell**2)
    assert torch.equal(to_cells(tokens, (4 // cell, 6 // cell), cell), cells)
    # channel 1 of the token at (1, 2): its cells from left to right, from above
    top, left = cell, 2 * cell
    expected = cells[0, 1, top : top + cell, left : left + cell].flatten()
    assert torch.equal(tokens[0, 6 // cell + 2, cell**2 : 2 * cell**2], expected)


def test_inputs_see_the_scales_before_and_targets_are_the_bits():
    found = quantise(features(), SCHEDULE)
    inputs = teacher_inputs(found, SCHEDULE)
    assert inputs.shape == (2, 6 + 24, 5)
    torch.testing.assert_close(inputs[:, :6], to_tokens(resize(found.history[0], (2, 3)), 1))
    assert torch.equal(inputs[:, 6:], to_tokens(found.history[1], 1))
    targets = teacher_targets(found, SCHEDULE)
    assert torch.equal(targets[:, 0], found.bits[0][:, :, 0, 0])


def test_shrinking_takes_means_and_enlarging_keeps_a_constant():
    x = features()
    torch.testing.assert_close(shrink(x, (1, 1)), x.mean((2, 3), keepdim=True))
    constant = torch.full((1, 2, 1, 1), 0.7)
    torch.testing.assert_close(resize(constant, (4, 6)), torch.full((1, 2, 4, 6), 0.7))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**16))
def test_packing_is_numpys_and_comes_back(channels, seed):
    bits = [
        torch.rand(2, channels, h, w, generator=torch.Generator().manual_seed(seed)) < 0.5
        for h, w in SCHEDULE.latent_grids
    ]
    packed = pack_bits(bits)
    flat = np.concatenate([b.permute(0, 2, 3, 1).flatten(1).numpy() for b in bits], axis=1)
    assert np.array_equal(packed.numpy(), np.packbits(flat, axis=1))
    assert packed.shape[1] == packed_length(SCHEDULE, channels)
    for one, other in zip(unpack_bits(packed, SCHEDULE, channels), bits, strict=True):
        assert torch.equal(one, other)


def test_bits_of_another_model_are_refused():
    packed = pack_bits(quantise(features(), SCHEDULE).bits)
    with pytest.raises(InvalidRequestError, match="expected 28 for 7 bits"):
        unpack_bits(packed, SCHEDULE, 7)
