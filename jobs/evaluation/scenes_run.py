"""Held-out scenes against their exact truth: every arm, its figures, and what lies between arms."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from farm.storage.store import Store
from farm.zoo.evaluation import EditScore, as_json, compare, summarise
from farm.zoo.judge import load_judge
from farm.zoo.model_sets import ModelSet
from farm.zoo.scenes.edits import sample_edits
from farm.zoo.scenes.vocabulary import EditType
from jobs.bars import bar
from jobs.batch import OpenRunner
from jobs.console import print_table, say, write_file
from jobs.evaluation.arms import Arm
from jobs.evaluation.cases import Trial, make_cases, make_trials
from jobs.evaluation.running import (
    Outcomes,
    describe_arms,
    provenance_of,
    run_trials,
    spent,
)
from jobs.evaluation.scores import all_bounds, costs_of, judge_figures, score_trial
from jobs.evaluation.sheets import draw_sheet, pick
from jobs.evaluation.tables import arms_table, differences_table, types_table
from jobs.evaluation.tradeoff import Point
from jobs.records import TENANT

Scores = Mapping[str, list[EditScore]]


def planned(
    arms: Sequence[Arm],
    *,
    models: ModelSet,
    edits: int,
    seed: int,
    types: tuple[EditType, ...],
    pictures: Path | None = None,
) -> list[Trial]:
    """What `evaluate` runs; arguments are its own."""
    del pictures
    return make_trials(arms, make_cases(sample_edits(edits, seed, types)), models)


def evaluate(
    arms: Sequence[Arm],
    models: ModelSet,
    store: Store,
    open_runner: OpenRunner,
    *,
    edits: int,
    seed: int,
    types: tuple[EditType, ...],
    in_flight: int,
    threads: int,
    pictures: Path | None = None,
) -> dict[str, Any]:
    """Everything about these edits by these arms, as `--json` writes it.

    Args:
        arms: the first is the default.
        models: the networks.
        store: what is in it is not run again.
        open_runner: who runs edits.
        edits: how many.
        seed: that they are drawn from.
        types: taking turns.
        in_flight: edits at once.
        threads: that share the backbone's batches while measuring.
        pictures: folder for a sheet of pictures of each arm.

    Raises:
        FarmError: something is not there that all edits need.
    """
    judge = load_judge(models.folder)
    trials = planned(arms, models=models, edits=edits, seed=seed, types=types)
    started = time.monotonic()
    with open_runner() as runner:
        outcomes = run_trials(runner, trials, in_flight=in_flight, threads=threads)
        say("measuring the sources without an edit")
        bounds = all_bounds(runner, store, TENANT, trials, outcomes, threads=threads)
        backbones = runner.describe()
    costs = costs_of(trials, outcomes, store, TENANT)
    scores: dict[str, list[EditScore]] = {arm.name: [] for arm in arms}
    with bar("measuring", len(trials)) as show:
        for number, trial in enumerate(trials, 1):
            outcome, bound = outcomes[trial.name], bounds.get(trial.name)
            score = score_trial(trial, outcome, bound, store, TENANT, judge, costs)
            scores[trial.arm.name].append(score)
            show(number)
    record = _record(arms, trials, outcomes, scores, models, seed=seed)
    record["summary"]["judge"] = judge_figures(judge, trials[: len(trials) // len(arms)], bounds)
    record["provenance"] |= {
        "wall_seconds": time.monotonic() - started,
        "backbones": backbones,
    }
    if pictures is not None:
        _write_sheets(pictures, arms, trials, outcomes, scores, store)
    return record


def failed(record: Mapping[str, Any]) -> int:
    """Edits of all arms that failed."""
    summaries = [record["summary"], *(arm["summary"] for arm in record["arms"].values())]
    return sum(summary["failed"] for summary in summaries)


def points(record: Mapping[str, Any]) -> list[Point]:
    """Success against accelerator seconds of every arm that has both."""
    default = {"method": record["provenance"]["method"], "summary": record["summary"]}
    found: list[Point] = []
    for name, arm in {default["method"]: default, **record["arms"]}.items():
        summary = arm["summary"]
        seconds = summary["accelerator_seconds_per_edit"]
        if seconds is not None:
            low, high = summary["intervals"]["success"]
            is_method = name == arm["method"]
            found.append(Point(name, seconds, summary["success"], low, high, is_method))
    return found


def show(record: Mapping[str, Any]) -> None:
    """The tables, on stdout."""
    print_table(types_table(record["summary"]))
    if record["arms"]:
        others = {name: arm["summary"] for name, arm in record["arms"].items()}
        print_table(arms_table({"default": record["summary"], **others}))
        print_table(differences_table("default", record["differences"]))
    for name, compared in record["differences_of"].items():
        print_table(differences_table(name, compared))


def _record(
    arms: Sequence[Arm],
    trials: Sequence[Trial],
    outcomes: Outcomes,
    scores: Scores,
    models: ModelSet,
    *,
    seed: int,
) -> dict[str, Any]:
    """The JSON: the default arm's figures, every arm's, and what lies between them.

    `differences` are those of the default arm to the others; `differences_of` those of the further
    methods, each to all arms but itself.
    """
    summaries = {name: summarise(column, seed=seed) for name, column in scores.items()}
    default, *others = arms
    described = describe_arms(arms, trials, outcomes)
    methods = [arm for arm in others if arm.name == arm.method]

    def differences(one: Arm) -> dict[str, Any]:
        rest = [arm for arm in arms if arm != one]
        return {arm.name: compare(scores[one.name], scores[arm.name], seed=seed) for arm in rest}

    return {
        "summary": summaries[default.name],
        "edits": [as_json(score) for score in scores[default.name]],
        "arms": {
            arm.name: {
                **described[arm.name],
                "summary": summaries[arm.name],
                "edits": [as_json(score) for score in scores[arm.name]],
            }
            for arm in others
        },
        "differences": differences(default),
        "differences_of": {arm.name: differences(arm) for arm in methods},
        "provenance": {
            **provenance_of(models, outcomes, seed=seed),
            "method": default.method,
            "config": described[default.name]["config"],
            "accelerator_seconds": spent(default, trials, outcomes),
        },
    }


def _write_sheets(
    folder: Path,
    arms: Sequence[Arm],
    trials: Sequence[Trial],
    outcomes: Outcomes,
    scores: Scores,
    store: Store,
) -> None:
    for arm in arms:
        own = [trial for trial in trials if trial.arm == arm]
        rows = pick(list(zip(own, scores[arm.name], strict=True)))
        path = folder / f"{arm.method if arm.name == 'default' else arm.name}.png"
        write_file(path, draw_sheet(rows, outcomes, store))
        say(f"pictures: {path}")
