r"""Measure a method on held-out scenes, as definitions.md says.

    editfarm evaluate --model-set scenes --method style_diffusion --edits 192 --seed 1 \
        --types colour,background --json out/quality/style_diffusion.json
    editfarm evaluate --edits 192 --types colour,background --json out/quality/arms.json \
        --arm plain:learned=nothing --arm forced:training=forced --arm sdedit:method=sdedit

The method sees the PNG bytes, the prompts and the word, through the farm; masks, scenes and the
judge stay in this process. `--arm` does the same edits in another way; arms are compared pair by
pair. 192 edits take about 25 minutes on two cores; what is in the store already is not run again.
"""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.errors import FarmError
from farm.results import EditResult
from farm.runner import versions
from farm.storage.opening import open_store
from farm.storage.store import check_writable
from farm.zoo.evaluation import EditScore, as_json, compare, summarise
from farm.zoo.judge import load_judge
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.scenes.edits import parse_types, sample_edits
from farm.zoo.scenes.vocabulary import DEFAULT_TYPES
from jobs.batch import EditRunner, Messages
from jobs.console import (
    FarmCommand,
    ModelSetOption,
    check_file,
    command_app,
    print_table,
    say,
    write_file,
)
from jobs.edit import parse_parameter
from jobs.evaluation.arms import Arm, plan_arms
from jobs.evaluation.baselines import Drawn, draw_all
from jobs.evaluation.cases import Trial, make_cases, make_trials
from jobs.evaluation.measures import measures_of
from jobs.evaluation.scores import (
    MEASURES,
    Outcome,
    Outcomes,
    all_bounds,
    judge_figures,
    score_trial,
)
from jobs.evaluation.tables import arms_table, differences_table, types_table
from jobs.records import TENANT
from jobs.runners import choose_runner

_THREADS = 8
_SAY_EVERY = 30.0

app = command_app()


@app.command(cls=FarmCommand)
def evaluate(
    edits: Annotated[int, typer.Option(min=1, help="Number of edits.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Held-out seed; any works.")] = 1,
    method: Annotated[str, typer.Option(help="How to edit.")] = "style_diffusion",
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = ",".join(DEFAULT_TYPES),
    model_set: ModelSetOption = "scenes",
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="Method parameter, name=value; repeatable.")
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PARAM=VALUE,…",
            help="The same edits with other parameters (or method=…), to compare; repeatable.",
        ),
    ] = None,
    store: Annotated[str, typer.Option(help="Store; what it has is not run again.")] = (
        "out/evaluate"
    ),
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
) -> None:
    """Measure a method on held-out scenes against their exact truth."""
    arms = plan_arms(method, dict(map(parse_parameter, param or [])), arm or [])
    for asked in arms:
        measures_of(asked.method, MEASURES)
    chosen = parse_types(types)
    if json_file is not None:
        check_file(json_file)
    models, opened = open_model_set(model_set), open_store(store)
    judge = load_judge(models.folder)
    trials = make_trials(arms, make_cases(sample_edits(edits, seed, chosen)), models)
    check_writable(opened)
    started = time.monotonic()
    with choose_runner(models, opened, TENANT, inline=inline)() as runner:
        threads = 1 if inline else _THREADS
        outcomes = {
            **_run(runner, [t for t in trials if t.baseline is None], max_in_flight),
            **draw_all(runner, [t.baseline for t in trials if t.baseline], threads=threads),
        }
        say("measuring the sources without an edit")
        bounds = all_bounds(runner, opened, TENANT, trials, outcomes, threads=threads)
        backbones = runner.describe()
    scores: dict[str, list[EditScore]] = {asked.name: [] for asked in arms}
    for trial in trials:
        score = score_trial(
            trial, outcomes[trial.name], bounds.get(trial.name), opened, TENANT, judge
        )
        scores[trial.arm.name].append(score)
    record = _record(arms, trials, outcomes, scores, models, seed=seed)
    record["summary"]["judge"] = judge_figures(judge, trials[: len(trials) // len(arms)], bounds)
    record["provenance"] |= {
        "wall_seconds": time.monotonic() - started,
        "backbones": backbones,
    }
    if json_file is not None:
        write_file(json_file, json.dumps(record, indent=1).encode())
        say(f"figures: {json_file}")
    _show(record)
    failed = [score for column in scores.values() for score in column if score.error is not None]
    raise typer.Exit(int(len(failed) > 0))


def _run(
    runner: EditRunner, trials: Sequence[Trial], in_flight: int
) -> dict[str, EditResult | FarmError]:
    """Outcome of every trial, said as they come."""
    outcomes: dict[str, EditResult | FarmError] = {}
    started = last = time.monotonic()

    def watch(messages: Messages) -> None:
        nonlocal last
        if time.monotonic() - last > _SAY_EVERY:
            last = time.monotonic()
            say(f"{len(outcomes)}/{len(trials)} done, {len(messages)} running")

    named = ((trial.name, trial.prepared) for trial in trials)
    for name, outcome in runner.run(named, in_flight=in_flight, watch=watch):
        outcomes[name] = outcome
        if isinstance(outcome, FarmError):
            say(f"failed {name}: {outcome.message}")
    say(f"{len(outcomes)} edits in {time.monotonic() - started:.0f} s")
    return outcomes


def _record(
    arms: Sequence[Arm],
    trials: Sequence[Trial],
    outcomes: Outcomes,
    scores: Mapping[str, list[EditScore]],
    models: ModelSet,
    *,
    seed: int,
) -> dict[str, Any]:
    """The JSON: the default arm's figures, every arm's, and what lies between them."""
    summaries = {name: summarise(column, seed=seed) for name, column in scores.items()}
    default, *others = arms
    configs = {trial.arm.name: trial.config.model_dump(mode="json") for trial in trials}
    return {
        "summary": summaries[default.name],
        "edits": [as_json(score) for score in scores[default.name]],
        "arms": {
            arm.name: {
                "method": arm.method,
                "parameters": arm.parameters,
                "config": configs[arm.name],
                "accelerator_seconds": _accelerator_seconds(arm, trials, outcomes),
                "summary": summaries[arm.name],
                "edits": [as_json(score) for score in scores[arm.name]],
            }
            for arm in others
        },
        "differences": {
            arm.name: compare(scores[default.name], scores[arm.name], seed=seed) for arm in others
        },
        "provenance": {
            "command": shlex.join(["editfarm", *sys.argv[1:]]),
            "seed": seed,
            "model_set": models.name,
            "weights": models.digests,
            "config": configs[default.name],
            "accelerator_seconds": _accelerator_seconds(default, trials, outcomes),
            "versions": versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
            **_pids(outcomes.values()),
        },
    }


def _accelerator_seconds(arm: Arm, trials: Sequence[Trial], outcomes: Outcomes) -> float:
    """All that this arm's edits cost, without the stages that they found made."""
    results = [outcomes[trial.name] for trial in trials if trial.arm == arm]
    farm = sum(r.provenance.accelerator_seconds for r in results if isinstance(r, EditResult))
    return farm + sum(r.accelerator_seconds for r in results if isinstance(r, Drawn))


def _pids(outcomes: Iterable[Outcome]) -> dict[str, list[int]]:
    done = [o.provenance for o in outcomes if isinstance(o, EditResult)]
    return {
        "trainer_pids": sorted({p.trainer_pid for p in done}),
        "backbone_pids": sorted({pid for p in done for pid in p.backbone_pids}),
    }


def _show(record: Mapping[str, Any]) -> None:
    print_table(types_table(record["summary"]))
    if record["arms"]:
        others = {name: arm["summary"] for name, arm in record["arms"].items()}
        print_table(arms_table({"default": record["summary"], **others}))
        print_table(differences_table("default", record["differences"]))


if __name__ == "__main__":
    app()
