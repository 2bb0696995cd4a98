import numpy as np
import pytest
import torch

from farm.backbones.infinity.schedules import own_schedule
from farm.methods.edit_infinity.config import NoiseConfig
from farm.methods.edit_infinity.noise import step_noise
from tests.tiny_infinity import SPEC

LAYOUT = own_schedule([(1, 1), (64, 64)], cell=1, stride=4)


def noise(step=0, seed=0, **changes):
    return step_noise(SPEC, LAYOUT, NoiseConfig(**changes), (seed, "stage", step))


def test_noise_follows_from_its_key_alone():
    one, same, other = noise(3), noise(3), noise(4)
    assert torch.equal(one.flips, same.flips)
    assert one.dropout_seed == same.dropout_seed
    assert not torch.equal(one.flips, other.flips)
    assert one.dropout_seed != other.dropout_seed
    assert not torch.equal(one.flips, noise(3, seed=1).flips)


def test_rates_of_flips_are_hundredths_up_to_the_strength():
    count = 4 * 64 * 64
    rates = set()
    for step in range(60):
        bits = np.unpackbits(noise(step).flips.numpy())[4 : 4 + count]
        share = bits.mean()
        nearest = round(share * 100) / 100
        # five standard deviations of a mean of so many draws
        assert abs(share - nearest) < 5 * (0.25 / count) ** 0.5
        rates.add(nearest)
    assert min(rates) < 0.05
    assert 0.25 < max(rates) <= 0.31
    assert len(rates) > 15
    assert not noise(flip_strength=0.0).flips.any()


def test_paths_are_dropped_more_often_in_later_blocks():
    plain = noise()
    assert torch.equal(plain.branch_scale, torch.ones(SPEC.depth, 2))
    drawn = torch.stack([noise(step, drop_path=0.5).branch_scale for step in range(400)])
    assert torch.equal(drawn[:, 0], torch.ones(400, 2))
    assert drawn[:, 1].unique().tolist() == [0, 2]
    # kept paths are doubled, so the mean stays one; five standard deviations of 800 draws
    assert drawn[:, 1].mean().item() == pytest.approx(1, abs=5 / 800**0.5)


def test_texts_are_dropped_at_their_rate_and_shift_nothing_else():
    dropped = [noise(step, condition_dropout=0.3).dropped for step in range(400)]
    assert np.mean(dropped) == pytest.approx(0.3, abs=5 * (0.21 / 400) ** 0.5)
    assert not any(noise(step).dropped for step in range(50))
    assert torch.equal(noise(1, condition_dropout=0.9).flips, noise(1).flips)
