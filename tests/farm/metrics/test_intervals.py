import math

import numpy as np
import pytest
import torch
from scipy import stats

from farm.errors import InvalidRequestError
from farm.metrics import intervals
from farm.metrics.intervals import bootstrap_interval, paired_difference


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(count, *, seed=0):
    return torch.randn(count, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_is_normal_theory_for_many_samples(level):
    values = 3 + 2 * normal(400)
    result = bootstrap_interval(values, level=level, resamples=20_000, generator=seeded(1))
    half = stats.norm.ppf((1 + level) / 2) * values.std(correction=0).item() / math.sqrt(400)
    assert result.mean == pytest.approx(values.mean().item())
    # A quantile of 20 000 draws varies by about 1 to 2 % of the half-width (its standard error is
    # sqrt(p (1 - p) / 20 000) / density); 4 % is two to three of those.
    assert result.low == pytest.approx(result.mean - half, abs=0.04 * half)
    assert result.high == pytest.approx(result.mean + half, abs=0.04 * half)


def test_agrees_with_scipys_percentile_bootstrap_on_skewed_values():
    values = normal(60).exp()
    ours = bootstrap_interval(values, resamples=20_000, generator=seeded(1))
    oracle = stats.bootstrap(
        (values.numpy(),),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = oracle.high - oracle.low
    assert ours.low == pytest.approx(oracle.low, abs=0.03 * width)
    assert ours.high == pytest.approx(oracle.high, abs=0.03 * width)


def test_covers_the_true_mean_as_often_as_it_says():
    hits = 0
    for seed in range(300):
        result = bootstrap_interval(normal(50, seed=seed), resamples=500, generator=seeded(seed))
        hits += result.low <= 0 <= result.high
    # Expected 0.94 (percentile intervals of 50 samples are a little narrow), ± 4 standard errors
    # of sqrt(0.94 · 0.06 / 300) = 0.014.
    assert 0.885 <= hits / 300 <= 0.995


def test_shares_of_successes():
    """A yes in 3 of 4 cases, 192 times: Wald's interval, 0.75 ± 1.96 · sqrt(0.1875 / 192)."""
    values = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(48)
    result = bootstrap_interval(values, generator=seeded())
    half = 1.96 * math.sqrt(0.1875 / 192)
    assert (result.low, result.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.008)


def test_is_the_same_for_the_same_seed_and_leaves_the_global_one_alone():
    values, state = normal(30), torch.get_rng_state()
    first = bootstrap_interval(values, generator=seeded(5))
    assert first == bootstrap_interval(values, generator=seeded(5))
    assert first != bootstrap_interval(values, generator=seeded(6))
    assert torch.equal(torch.get_rng_state(), state)


def test_memory_in_chunks_changes_nothing(monkeypatch):
    values = normal(30)
    whole = bootstrap_interval(values, resamples=100, generator=seeded())
    monkeypatch.setattr(intervals, "_CHUNK", 30 * 7)  # 7 rows at a time; 100 is no multiple
    assert bootstrap_interval(values, resamples=100, generator=seeded()) == whole


def test_one_value_and_constants_have_no_width():
    for values in (torch.tensor([0.5]), torch.full((20,), 0.5)):
        result = bootstrap_interval(values, generator=seeded())
        assert (result.mean, result.low, result.high) == (0.5, 0.5, 0.5)


def test_pairs_cancel_what_they_share():
    shared, offset = 100 * normal(200), 0.5 + 0.1 * normal(200, seed=1)
    result = paired_difference(shared + offset, shared, generator=seeded(2))
    half = 1.96 * 0.1 / math.sqrt(200)
    assert result.mean == pytest.approx(0.5, abs=0.03)
    assert result.high - result.low == pytest.approx(2 * half, rel=0.2)
    swapped = paired_difference(shared, shared + offset, generator=seeded(2))
    assert swapped.mean == pytest.approx(-result.mean)
    assert (swapped.low, swapped.high) == pytest.approx((-result.high, -result.low))


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (torch.zeros(0), {}, "found 0 values"),
        (torch.tensor([1.0, torch.nan]), {}, "1 are finite"),
        (torch.ones(3), {"resamples": 0}, "resamples = 0"),
        (torch.ones(3), {"level": 1.0}, "level = 1"),
    ],
)
def test_what_has_no_interval_is_refused(values, options, words):
    with pytest.raises(InvalidRequestError, match=words):
        bootstrap_interval(values, generator=seeded(), **options)


def test_unpaired_values_are_refused():
    unchecked = getattr(paired_difference, "__wrapped__", paired_difference)
    with pytest.raises(InvalidRequestError, match="found 3 and 4"):
        unchecked(torch.ones(3), torch.ones(4), generator=seeded())
