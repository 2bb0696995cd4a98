import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.backbones.infinity.sampling import (
    Filter,
    KeyedNoise,
    draw,
    in_hindsight,
    probabilities,
)


def pair(probability):
    return torch.tensor([[1 - probability, probability]]).log()


@pytest.mark.parametrize(
    ("probability", "top_p", "kept"),
    [
        (0.031, 0.97, 0.031),
        (0.029, 0.97, 0.0),
        (0.971, 0.97, 1.0),
        (0.4, 0.5, 0.0),
        (0.5, 0.3, 0.5),
    ],
)
def test_the_less_likely_value_is_dropped_where_it_is_unlikely(probability, top_p, kept):
    found = probabilities(pair(probability), Filter(900, top_p))
    assert found[0, 1].item() == pytest.approx(kept, abs=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_one_value_is_always_the_likelier():
    logits = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    found = probabilities(logits, Filter(top_k=1))
    assert torch.equal(found[:, 1] == 1, logits[:, 1] > logits[:, 0])


def test_draws_have_the_probability():
    chances = torch.tensor([[0.8, 0.2]]).expand(20_000, 2)
    drawn = draw(chances, KeyedNoise([3]).draw(20_000, torch.device("cpu"))[0])
    # five standard deviations of a mean of so many draws
    assert drawn.float().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / 20_000) ** 0.5)


@given(st.integers(0, 2**32 - 1))
def test_draws_are_torchs_own(seed):
    chances = torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.0, 1.0], [0.97, 0.03]])
    drawn = draw(chances, KeyedNoise([seed]).draw(4, torch.device("cpu"))[0])
    generator = torch.Generator().manual_seed(seed)
    picks = torch.multinomial(chances, 1, replacement=True, generator=generator)
    assert torch.equal(drawn, picks[:, 0] == 1)


def test_an_items_noise_does_not_depend_on_its_batch():
    device = torch.device("cpu")
    both, alone = KeyedNoise([1, 2]), KeyedNoise([2])
    for count in (3, 5):
        assert torch.equal(both.draw(count, device)[1], alone.draw(count, device)[0])


MANY = 100_000


def both(chances):
    return torch.stack([1 - chances, chances], dim=-1)


def looked_back(seed):
    """Bits that were drawn, their chances, and the noise as it must have been."""
    generator = torch.Generator().manual_seed(seed)
    chances = torch.rand(MANY, generator=generator)
    bits = torch.rand(MANY, generator=generator) < chances
    noise = KeyedNoise([seed]).draw(MANY, torch.device("cpu"))[0]
    return bits, chances, in_hindsight(noise, bits, chances.logit())


def test_noise_in_hindsight_gives_what_was_drawn():
    bits, chances, noise = looked_back(1)
    assert torch.equal(draw(both(chances), noise), bits)


@pytest.mark.parametrize("bit", [False, True])
def test_what_was_drawn_against_all_odds_is_drawn_again(bit):
    """A source may have what its own text all but forbids."""
    logits = torch.zeros(MANY, 2)
    logits[:, int(not bit)] = 40  # chances of 4e-18, whose complement is one in single precision
    bits = torch.full((MANY,), bit)
    noise = KeyedNoise([2]).draw(MANY, torch.device("cpu"))[0]
    noise = in_hindsight(noise, bits, logits[:, 1] - logits[:, 0])
    # a hundredth likelier than it was, for rounding
    logits[:, int(bit)] += 0.01
    assert torch.equal(draw(logits.softmax(-1), noise), bits)
    logits[:, int(bit)] -= 30
    assert torch.equal(draw(logits.softmax(-1), noise), ~bits)


def test_over_all_that_could_be_drawn_noise_in_hindsight_is_noise():
    """Other chances come out as they are, whatever the odds were: nothing is biased."""
    _, _, noise = looked_back(3)
    for chance in (0.1, 0.5, 0.8):
        drawn = draw(both(torch.full((MANY,), chance)), noise)
        deviation = (chance * (1 - chance) / MANY) ** 0.5
        assert drawn.float().mean().item() == pytest.approx(chance, abs=5 * deviation)


def test_a_bit_changes_only_towards_where_its_chance_moved():
    bits, chances, noise = looked_back(4)
    more = (chances + 0.2).clamp(max=1)
    likelier = draw(both(more), noise)
    assert not (bits & ~likelier).any()
    # the least in which draws of two chances can differ is the chances' difference
    moved = (more - chances).mean().item()
    share = (likelier & ~bits).float().mean().item()
    assert share == pytest.approx(moved, abs=5 * (moved * (1 - moved) / MANY) ** 0.5)
