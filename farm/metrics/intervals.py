"""How sure a mean is: bootstrap intervals, also for paired comparisons."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import InvalidRequestError

# Indices drawn at a time, to bound memory at 32 MB whatever the number of samples.
_CHUNK = 2**22


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Float[Tensor, " samples"],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    generator: torch.Generator,
) -> Interval:
    """Percentile bootstrap of the mean (Efron 1979).

    The bounds are the (1 - level) / 2 and (1 + level) / 2 quantiles of the means of `resamples`
    draws with replacement. It is a little too narrow for fewer than about 20 samples.

    Args:
        values: finite numbers, at least one.
        resamples: number of draws.
        level: coverage, between 0 and 1.
        generator: source of the draws; on the CPU.

    Raises:
        InvalidRequestError: no values, values that are not finite, or settings out of range.
    """
    _check(values, resamples, level)
    samples = values.detach().double().cpu()
    means = _resampled_means(samples, resamples, generator)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = means.quantile(tails).tolist()
    return Interval(samples.mean().item(), low, high)


def paired_difference(
    first: Float[Tensor, " samples"],
    second: Float[Tensor, " samples"],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    generator: torch.Generator,
) -> Interval:
    """Interval of the mean of `first` - `second`, where entry i of both is the same case.

    Raises:
        InvalidRequestError: different numbers of values, or as `bootstrap_interval`.
    """
    if first.shape != second.shape:
        raise InvalidRequestError(
            f"found {len(first)} and {len(second)} values, expected one pair per case; "
            "compare the same edits in the same order"
        )
    return bootstrap_interval(first - second, resamples=resamples, level=level, generator=generator)


def _resampled_means(
    samples: Float[Tensor, " samples"], resamples: int, generator: torch.Generator
) -> Float[Tensor, " resamples"]:
    rows = max(1, _CHUNK // len(samples))
    means: list[Tensor] = []
    for done in range(0, resamples, rows):
        shape = (min(rows, resamples - done), len(samples))
        means.append(samples[torch.randint(len(samples), shape, generator=generator)].mean(dim=1))
    return torch.cat(means)


def _check(values: Float[Tensor, " samples"], resamples: int, level: float) -> None:
    if len(values) == 0 or not values.isfinite().all():
        raise InvalidRequestError(
            f"found {len(values)} values of which {int(values.isfinite().sum())} are finite, "
            "expected at least one and all of them finite; leave out cases without a value"
        )
    if resamples < 1 or not 0 < level < 1:
        raise InvalidRequestError(
            f"found resamples = {resamples} and level = {level:g}, expected at least 1 and a level "
            "between 0 and 1; the defaults are 2000 and 0.95"
        )
