import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.backbones.infinity.sampling import Filter, KeyedNoise, draw, probabilities


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
