"""PIE-Bench through the farm: every arm, its columns by category, and what lies between arms.

Importing this imports the metrics' libraries.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from farm.errors import FarmError, InvalidRequestError
from farm.images import decode_image
from farm.metrics.image_reward import NAME as IMAGE_REWARD
from farm.metrics.image_reward import Reward, load_image_reward
from farm.metrics.intervals import bootstrap_interval, paired_difference
from farm.metrics.pie_columns import column_of
from farm.metrics.pie_masks import Convention
from farm.metrics.pie_suite import PieMetrics, PieNetworks, published_networks
from farm.metrics.stand_ins import model_set_networks
from farm.runner import load_output
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.bars import bar
from jobs.batch import OpenRunner
from jobs.console import print_table, say
from jobs.evaluation.arms import Arm
from jobs.evaluation.baselines import Drawn
from jobs.evaluation.pie_cases import PieTrial, Refused, make_trials, read_benchmark
from jobs.evaluation.running import (
    Outcome,
    describe_arms,
    provenance_of,
    run_trials,
    stage_costs,
    whole_cost,
)
from jobs.evaluation.tradeoff import Point
from jobs.importers.pie import category_means, category_table

Image = Float[Tensor, "3 height width"]
SECONDS = "accelerator_seconds"


@dataclass(frozen=True)
class _Scored:
    """One edit of one arm: its figures, or why there are none."""

    name: str
    category: str
    figures: Mapping[str, float]
    error: str | None = None


@dataclass(frozen=True)
class _Ruler:
    """What pictures are measured with."""

    metrics: PieMetrics
    reward: Reward | None
    convention: Convention

    def __call__(self, trial: PieTrial, edited: Image) -> dict[str, float]:
        case, source = trial.case, decode_image(trial.image).image
        height, width = source.shape[-2:]
        if height != width or source.shape != edited.shape:
            raise InvalidRequestError(
                f"{case.name}: found pictures of {tuple(source.shape)} and {tuple(edited.shape)}, "
                "expected equal squares; the benchmark's are"
            )
        mask = case.mask(side=height, convention=self.convention)
        found = self.metrics(source, edited, mask, case.source_prompt, case.target_prompt)
        if self.reward is not None:
            found[IMAGE_REWARD] = self.reward(edited, case.target_prompt)
        return found


def planned(
    arms: Sequence[Arm],
    *,
    models: ModelSet,
    folder: Path,
    seed: int = 0,
    edits: int | None = None,
    weights: Path | None = None,
    convention: str = "released",
    image_reward: bool = False,
) -> list[PieTrial]:
    """What `evaluate` would run, and what it needs, checked; arguments are its own.

    Raises:
        FarmError: what is missing.
    """
    del seed
    _ruler(models, weights, convention, image_reward=image_reward)
    trials, _ = make_trials(arms, read_benchmark(folder, edits), folder, models)
    return trials


def evaluate(
    arms: Sequence[Arm],
    *,
    models: ModelSet,
    store: Store,
    open_runner: OpenRunner,
    folder: Path,
    seed: int,
    in_flight: int,
    threads: int,
    edits: int | None = None,
    weights: Path | None = None,
    convention: str = "released",
    image_reward: bool = False,
) -> dict[str, Any]:
    """Every figure of every arm on the benchmark, as `--json` writes it.

    Args:
        arms: the first is the default.
        models: the networks.
        store: what is in it is not run again.
        open_runner: who runs edits.
        folder: of the benchmark.
        seed: of the bootstrap.
        in_flight: edits at once.
        threads: of baselines.
        edits: the first so many alone.
        weights: folder of the published networks; None measures with the model set's own.
        convention: of the benchmark's numbers, "released" or "corrected".
        image_reward: whether ImageReward is measured, too.

    Raises:
        FarmError: what is missing, before anything is computed.
    """
    ruler = _ruler(models, weights, convention, image_reward=image_reward)
    trials, refused = make_trials(arms, read_benchmark(folder, edits), folder, models)
    started = time.monotonic()
    with open_runner() as runner:
        outcomes = run_trials(runner, trials, in_flight=in_flight, threads=threads)
        backbones = runner.describe()
    costs = stage_costs(outcomes.values())
    scored = _scored(arms, trials, refused, outcomes, store, ruler, costs)
    described = describe_arms(arms, trials, outcomes)
    default, *others = arms
    return {
        "benchmark": "pie",
        "convention": convention,
        "arms": {
            arm.name: {**described[arm.name], **_summary(scored[arm.name], seed)} for arm in arms
        },
        "differences": {
            arm.name: _differences(scored[default.name], scored[arm.name], seed) for arm in others
        },
        "provenance": {
            **provenance_of(models, outcomes, seed=seed),
            "method": default.method,
            "folder": folder.name,
            "wall_seconds": time.monotonic() - started,
            "backbones": backbones,
        },
    }


def failed(record: Mapping[str, Any]) -> int:
    """Edits of all arms that failed."""
    return sum(arm["failed"] for arm in record["arms"].values())


def points(record: Mapping[str, Any]) -> list[Point]:
    """CLIP's agreement with the target against accelerator seconds, of arms that have both."""
    found: list[Point] = []
    for name, arm in record["arms"].items():
        figures = arm["figures"]
        agreement = next((f for f in figures if f.startswith("clip_whole")), None)
        if agreement is not None and SECONDS in figures:
            quality, seconds = figures[agreement], figures[SECONDS]["mean"]
            bounds = (quality["mean"], quality["low"], quality["high"])
            found.append(Point(name, seconds, *bounds, is_method=name == arm["method"]))
    return found


def show(record: Mapping[str, Any]) -> None:
    """The tables, on stdout: categories of each arm, arms side by side, differences."""
    for name, arm in record["arms"].items():
        say(f"{name} ({arm['method']}), {record['convention']} convention")
        print_table(category_table(_numbers(arm["categories"])))
    print_table(_side_by_side(record["arms"]))
    for name, found in record["differences"].items():
        table = Table(f"default minus {name}", "mean", "95 % interval", "edits")
        for figure, one in found.items():
            scale = _scale(figure)
            low, high = one["low"] * scale, one["high"] * scale
            interval = f"[{low:+.2f}, {high:+.2f}]"
            table.add_row(figure, f"{one['mean'] * scale:+.2f}", interval, str(one["edits"]))
        print_table(table)


def _ruler(
    models: ModelSet, weights: Path | None, convention: str, *, image_reward: bool
) -> _Ruler:
    known: dict[str, Convention] = {name: name for name in get_args(Convention)}
    if convention not in known:
        raise InvalidRequestError(f"--convention {convention!r}: there are {' and '.join(known)}")
    reward = load_image_reward(weights) if image_reward else None
    networks: PieNetworks = (
        model_set_networks(models.folder, models.name.rstrip("/").rpartition("/")[2])
        if weights is None
        else published_networks(weights)
    )
    return _Ruler(PieMetrics(networks, known[convention]), reward, known[convention])


def _scored(
    arms: Sequence[Arm],
    trials: Sequence[PieTrial],
    refused: Sequence[Refused],
    outcomes: Mapping[str, Outcome],
    store: Store,
    ruler: _Ruler,
    costs: Mapping[str, float],
) -> dict[str, list[_Scored]]:
    """By arm, in the order of the cases."""
    found: dict[str, dict[int, _Scored]] = {arm.name: {} for arm in arms}
    for one in refused:
        case = one.case
        entry = _Scored(case.name, case.category, {}, one.error.message)
        found[one.arm.name][case.number] = entry
    with bar("measuring", len(trials)) as show:
        for number, trial in enumerate(trials, 1):
            entry = _measured(trial, outcomes[trial.name], store, ruler, costs)
            found[trial.arm.name][trial.case.number] = entry
            show(number)
    return {name: [own[n] for n in sorted(own)] for name, own in found.items()}


def _measured(
    trial: PieTrial, outcome: Outcome, store: Store, ruler: _Ruler, costs: Mapping[str, float]
) -> _Scored:
    case = trial.case
    if isinstance(outcome, FarmError):
        return _Scored(case.name, case.category, {}, outcome.message)
    if isinstance(outcome, Drawn):
        picture, seconds = outcome.image, outcome.accelerator_seconds
    else:
        picture = decode_image(load_output(store, outcome, "edited.png")).image
        seconds = whole_cost(outcome, costs)
    return _Scored(case.name, case.category, {**ruler(trial, picture), SECONDS: seconds})


def _summary(scored: Sequence[_Scored], seed: int) -> dict[str, Any]:
    good = [one for one in scored if one.error is None]
    means = category_means((one.category, one.figures) for one in good)
    names = dict.fromkeys(name for one in good for name in one.figures)
    figures: dict[str, Any] = {}
    for name in names:
        values = [one.figures[name] for one in good if not math.isnan(one.figures[name])]
        if values:
            interval = bootstrap_interval(torch.tensor(values), generator=_generator(seed))
            figures[name] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {
        "edits": [
            {
                "id": one.name,
                "category": one.category,
                "error": one.error,
                **{name: _plain(value) for name, value in one.figures.items()},
            }
            for one in scored
        ],
        "failed": len(scored) - len(good),
        "figures": figures,
        "categories": {
            key: {name: _plain(value) for name, value in own.items()} for key, own in means.items()
        },
    }


def _differences(
    first: Sequence[_Scored], second: Sequence[_Scored], seed: int
) -> dict[str, dict[str, float]]:
    """Mean paired differences `first` - `second` of every figure that both have."""
    found: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(name for one in first for name in one.figures):
        pairs = [
            (a.figures.get(name, math.nan), b.figures.get(name, math.nan))
            for a, b in zip(first, second, strict=True)
        ]
        pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
        if pairs:
            columns = torch.tensor(pairs).T
            interval = paired_difference(columns[0], columns[1], generator=_generator(seed))
            bounds = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            found[name] = {**bounds, "edits": len(pairs)}
    return found


def _side_by_side(arms: Mapping[str, Any]) -> Table:
    table = Table("figure", *arms)
    for figure in dict.fromkeys(name for arm in arms.values() for name in arm["figures"]):
        cells = (arm["figures"].get(figure) for arm in arms.values())
        table.add_row(figure, *(_interval(one, _scale(figure)) for one in cells))
    return table


def _interval(found: Mapping[str, float] | None, scale: float) -> str:
    if found is None:
        return "-"
    low, high = found["low"] * scale, found["high"] * scale
    return f"{found['mean'] * scale:.2f} [{low:.2f}, {high:.2f}]"


def _scale(name: str) -> float:
    column = column_of(name)
    return column.scale if column else 1.0


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON has no nan


def _numbers(
    categories: Mapping[str, Mapping[str, float | None]],
) -> dict[str, dict[str, float]]:
    return {
        key: {name: math.nan if value is None else value for name, value in own.items()}
        for key, own in categories.items()
    }


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
