"""From scored edits to the figures of definitions.md: means with intervals, by type, set apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from farm.metrics.intervals import bootstrap_interval

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
    "plain_ddim_psnr",
    "seconds",
    "accelerator_seconds",
)
_RENAMED = {
    "seconds": "seconds_per_edit",
    "accelerator_seconds": "accelerator_seconds_per_edit",
}
_WORTHLESS = ("success", "asked")
"""Figures that an edit without a result has too: it did not do what was asked."""


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
    """Of the inversion's reconstruction, whole picture."""
    reconstruction_bound_psnr: float = math.nan
    """Of the autoencoder alone, whole picture."""
    plain_ddim_psnr: float = math.nan
    """Of plain DDIM inversion and sampling at the same guidance, whole picture."""
    seconds: float = math.nan
    accelerator_seconds: float = math.nan
    calls: Mapping[str, int] | None = None


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


def as_json(score: EditScore) -> dict[str, Any]:
    """One entry of `edits`: JSON has no nan, so that is null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in asdict(score).items()
    }


def _split(
    scores: Sequence[EditScore], label: Callable[[EditScore], str], seed: int
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[EditScore]] = {}
    for score in scores:
        groups.setdefault(label(score), []).append(score)
    return {name: _figures(group, seed) for name, group in sorted(groups.items())}


def _figures(scores: Sequence[EditScore], seed: int) -> dict[str, Any]:
    """Means, their 95 % bootstrap intervals, mean work per edit, and how many there were."""
    means: dict[str, Any] = {
        "edits": len(scores),
        "failed": sum(s.error is not None for s in scores),
    }
    intervals: dict[str, list[float]] = {}
    for figure in _FIGURES:
        counted = [s for s in scores if s.error is None or figure in _WORTHLESS]
        values = [v for v in (float(getattr(s, figure)) for s in counted) if not math.isnan(v)]
        name = _RENAMED.get(figure, figure)
        if not values:
            means[name] = None
            continue
        interval = bootstrap_interval(
            torch.tensor(values), generator=torch.Generator().manual_seed(seed)
        )
        means[name] = interval.mean
        intervals[name] = [interval.low, interval.high]
    means["intervals"] = intervals
    means["calls"] = _mean_work([s.calls for s in scores if s.calls is not None])
    return means


def _mean_work(calls: Sequence[Mapping[str, int]]) -> dict[str, float]:
    names = sorted({name for work in calls for name in work})
    return {name: sum(work.get(name, 0) for work in calls) / len(calls) for name in names}
