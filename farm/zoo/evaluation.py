"""From scored edits to the figures of definitions.md: means with intervals, by type, set apart."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from farm.errors import InvalidRequestError
from farm.metrics.intervals import Interval, bootstrap_interval, paired_difference

_FIGURES = (
    "success",
    "asked",
    "outside_psnr",
    "bound_psnr",
    "inside_psnr",
    "region_iou",
    "pointing",
    "reconstruction_psnr",
    "reconstruction_bound_psnr",
    "seconds",
    "accelerator_seconds",
)
_RENAMED = {
    "seconds": "seconds_per_edit",
    "accelerator_seconds": "accelerator_seconds_per_edit",
}
_WORTHLESS = ("success", "asked")
"""Figures that an edit without a result has too: it did not do what was asked."""
_NOT_COMPARED = ("seconds",)
"""Wall time depends on what else ran beside an edit."""


@dataclass(frozen=True)
class EditScore:
    """All figures of one edit; nan where there is none (a picture without untouched pixels)."""

    id: str
    type: str
    held_out: bool
    """A (shape, colour, background) combination that no training saw."""
    small: bool
    """The region is under 4 % of the picture."""
    objects: int
    source_prompt: str
    target_prompt: str
    error: str | None = None
    success: float = 0.0
    asked: float = 0.0
    outside_psnr: float = math.nan
    bound_psnr: float = math.nan
    inside_psnr: float = math.nan
    region_iou: float = math.nan
    pointing: float = math.nan
    reconstruction_psnr: float = math.nan
    """Of the method's reconstruction of the source, whole picture."""
    reconstruction_bound_psnr: float = math.nan
    """Of the autoencoder alone, whole picture."""
    seconds: float = math.nan
    accelerator_seconds: float = math.nan
    more: Mapping[str, float] = field(default_factory=dict[str, float])
    """Figures that this method alone has."""
    calls: Mapping[str, int] | None = None

    def figure(self, name: str) -> float:
        """A figure by name; nan where this edit has none."""
        return float(self.more.get(name, getattr(self, name, math.nan)))


def summarise(scores: Sequence[EditScore], *, seed: int) -> dict[str, Any]:
    """The `summary` of an evaluation: all edits, then by type and by what is reported apart."""
    summary = _figures(scores, seed)
    summary["by_type"] = _split(scores, lambda s: s.type, seed)
    summary["by_combination"] = _split(
        scores, lambda s: "held_out" if s.held_out else "trained", seed
    )
    summary["by_objects"] = _split(scores, lambda s: str(s.objects), seed)
    summary["by_size"] = _split(scores, lambda s: "small" if s.small else "normal", seed)
    return summary


def compare(
    first: Sequence[EditScore], second: Sequence[EditScore], *, seed: int
) -> dict[str, Any]:
    """Mean paired differences `first` - `second` of every figure, with 95 % bootstrap intervals.

    Args:
        first: scores of some edits.
        second: scores of the same edits in the same order, by another method or configuration.
        seed: of the bootstrap.

    Returns:
        By figure `mean`, `low`, `high` and the number of `edits` that have it in both; the same
        under `by_type`.

    Raises:
        InvalidRequestError: they are not the same edits.
    """
    if [s.id for s in first] != [s.id for s in second]:
        raise InvalidRequestError(
            f"found {len(first)} and {len(second)} scores that are not of the same edits in the "
            "same order: compare figures of one run"
        )
    pairs = list(zip(first, second, strict=True))
    kinds = sorted({a.type for a, _ in pairs})
    result: dict[str, Any] = _differences(pairs, seed)
    result["by_type"] = {
        kind: _differences([pair for pair in pairs if pair[0].type == kind], seed) for kind in kinds
    }
    return result


def as_json(score: EditScore) -> dict[str, Any]:
    """One entry of `edits`: JSON has no nan, so that is null."""
    own = {item.name: getattr(score, item.name) for item in fields(score) if item.name != "more"}
    entry = {**own, **score.more}
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in entry.items()
    }


def _split(
    scores: Sequence[EditScore], label: Callable[[EditScore], str], seed: int
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[EditScore]] = {}
    for score in scores:
        groups.setdefault(label(score), []).append(score)
    return {name: _figures(group, seed) for name, group in sorted(groups.items())}


def _names(scores: Iterable[EditScore]) -> list[str]:
    """Figures that these edits may have: everyone's, then the method's own."""
    return list(dict.fromkeys([*_FIGURES, *(name for score in scores for name in score.more)]))


def _figures(scores: Sequence[EditScore], seed: int) -> dict[str, Any]:
    """Means, their 95 % bootstrap intervals, mean work per edit, and how many there were."""
    means: dict[str, Any] = {
        "edits": len(scores),
        "failed": sum(s.error is not None for s in scores),
    }
    intervals: dict[str, list[float]] = {}
    for figure in _names(scores):
        counted = [s for s in scores if s.error is None or figure in _WORTHLESS]
        values = [v for v in (s.figure(figure) for s in counted) if not math.isnan(v)]
        name = _RENAMED.get(figure, figure)
        if not values:
            means[name] = None
            continue
        interval = bootstrap_interval(torch.tensor(values), generator=_generator(seed))
        means[name] = interval.mean
        intervals[name] = [interval.low, interval.high]
    means["intervals"] = intervals
    means["calls"] = _mean_work([s.calls for s in scores if s.calls is not None])
    return means


def _differences(pairs: Sequence[tuple[EditScore, EditScore]], seed: int) -> dict[str, Any]:
    names = [
        name
        for name in _names(score for pair in pairs for score in pair)
        if name not in _NOT_COMPARED
    ]
    found: dict[str, Any] = {}
    for name in names:
        counted = [p for p in pairs if name in _WORTHLESS or not (p[0].error or p[1].error)]
        both = [(a.figure(name), b.figure(name)) for a, b in counted]
        both = [pair for pair in both if not any(map(math.isnan, pair))]
        if both:
            first, second = torch.tensor(both).T
            interval = paired_difference(first, second, generator=_generator(seed))
            found[_RENAMED.get(name, name)] = _plain(interval, len(both))
    return found


def _plain(interval: Interval, edits: int) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "edits": edits}


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mean_work(calls: Sequence[Mapping[str, int]]) -> dict[str, float]:
    names = sorted({name for work in calls for name in work})
    return {name: sum(work.get(name, 0) for work in calls) / len(calls) for name in names}
