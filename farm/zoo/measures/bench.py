"""What every measurement shares: networks, number of cases, seed, chunks with progress, means."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from farm.metrics.intervals import bootstrap_interval

CHUNK = 64

Cases: TypeAlias = Mapping[str, Float[Tensor, " cases"]]
"""Figures by name, one number a case; nan where a case has none."""

Figures: TypeAlias = dict[str, Any]
"""What is measured, for JSON: groups of `{figure: {mean, low, high, cases}}`."""


def _quiet(what: str, done: int, total: int) -> None:
    del what, done, total


@dataclass(frozen=True)
class Bench:
    """One round of measurements."""

    networks: Path
    """Folder with one folder a part."""
    cases: int = 512
    seed: int = 1
    """Held-out seed; any works."""
    tell: Callable[[str, int, int], None] = _quiet
    """Told what is measured, how many cases are done, and how many there are."""

    def chunks(self, what: str, total: int | None = None) -> Iterator[slice]:
        """Slices of the cases, with progress told after each."""
        count = self.cases if total is None else total
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            yield slice(start, stop)
            self.tell(what, stop, count)


def means(cases: Cases, seed: int = 0) -> Figures:
    """Mean, 95 % bootstrap interval and number of cases of every figure; None without a case."""
    figures: Figures = {}
    for name, values in cases.items():
        counted = values[~values.isnan()].double()
        if len(counted) == 0:
            figures[name] = {"mean": None, "low": None, "high": None, "cases": 0}
            continue
        generator = torch.Generator().manual_seed(seed)
        found = bootstrap_interval(counted, generator=generator)
        figures[name] = {
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
            "cases": len(counted),
        }
    return figures


def by_group(cases: Cases, groups: Mapping[str, Bool[Tensor, " cases"]]) -> Figures:
    """`means` of all cases and of each group's; groups without a case are left out."""
    figures: Figures = {"all": means(cases)}
    for group, members in groups.items():
        if members.any():
            figures[group] = means({name: values[members] for name, values in cases.items()})
    return figures


def combinations(held_out: Bool[Tensor, " cases"]) -> dict[str, Bool[Tensor, " cases"]]:
    """The two groups that definitions.md wants apart."""
    return {"trained": ~held_out, "held_out": held_out}


def stacked(rows: list[dict[str, float]]) -> dict[str, Float[Tensor, " cases"]]:
    """One tensor a figure from one mapping a case; nan where a case lacks a figure."""
    names = {name: None for row in rows for name in row}
    return {n: torch.tensor([float(row.get(n, math.nan)) for row in rows]) for n in names}
