"""All trials of an evaluation through the farm, and what they cost."""

import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from pydantic import BaseModel
from rich.table import Table

from farm.errors import FarmError
from farm.results import EditResult
from farm.runner import PreparedEdit, load_result, versions
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.bars import bar
from jobs.batch import EditRunner, Messages
from jobs.called import command_line
from jobs.console import print_table, say
from jobs.evaluation.arms import Arm
from jobs.evaluation.baselines import BaselineEdit, Drawn, draw_all
from jobs.records import TENANT

Outcome: TypeAlias = EditResult | Drawn | FarmError
Outcomes: TypeAlias = Mapping[str, Outcome]
"""By name of a trial."""


class Runnable(Protocol):
    """One edit as one arm does it, of whatever benchmark."""

    @property
    def name(self) -> str:
        """Unique among all trials of a run."""
        ...

    @property
    def arm(self) -> Arm: ...

    @property
    def prepared(self) -> PreparedEdit: ...

    @property
    def baseline(self) -> BaselineEdit | None: ...

    @property
    def config(self) -> BaseModel: ...


def run_trials(
    runner: EditRunner, trials: Sequence[Runnable], *, in_flight: int, threads: int
) -> dict[str, Outcome]:
    """Outcome of every trial, said as they come; what is in the store is not run again."""
    outcomes: dict[str, Outcome] = {}
    started = time.monotonic()
    named = [(trial.name, trial.prepared) for trial in trials if trial.baseline is None]
    with bar("edits", len(named)) as show:

        def watch(messages: Messages) -> None:
            show(len(outcomes), f"{len(messages)} running")

        for name, outcome in runner.run(named, in_flight=in_flight, watch=watch):
            outcomes[name] = outcome
            if isinstance(outcome, FarmError):
                say(f"failed {name}: {outcome.message}")
    drawn = draw_all(runner, [t.baseline for t in trials if t.baseline], threads=threads)
    say(f"{len(outcomes) + len(drawn)} edits in {time.monotonic() - started:.0f} s")
    return {**outcomes, **drawn}


def show_plan(trials: Sequence[Runnable], store: Store) -> None:
    """A table of the edits of each arm, and of how many the store has."""
    table = Table("arm", "method", "edits", "in the store", box=None)
    for arm in dict.fromkeys(trial.arm.name for trial in trials):
        own = [trial for trial in trials if trial.arm.name == arm]
        farm = [trial for trial in own if trial.baseline is None]
        there = sum(load_result(store, TENANT, one.prepared.edit_id) is not None for one in farm)
        table.add_row(arm, own[0].arm.method, str(len(own)), str(there) if farm else "never kept")
    print_table(table)


def stage_costs(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Accelerator seconds of each stage, by its digest, as told by the edits that made them."""
    costs: dict[str, float] = {}
    for outcome in outcomes:
        if isinstance(outcome, EditResult):
            provenance = outcome.provenance
            for name in provenance.stages_made:
                if name in provenance.stage_accelerator_seconds:
                    costs[provenance.stages[name]] = provenance.stage_accelerator_seconds[name]
    return costs


def whole_cost(outcome: EditResult, costs: Mapping[str, float]) -> float:
    """Accelerator seconds of an edit with all of its stages, also those that it found made.

    nan where nobody told what one of these cost.
    """
    provenance = outcome.provenance
    found = [d for name, d in provenance.stages.items() if name not in provenance.stages_made]
    return provenance.accelerator_seconds + sum(costs.get(digest, math.nan) for digest in found)


def spent(arm: Arm, trials: Iterable[Runnable], outcomes: Outcomes) -> float:
    """All that this arm's edits cost, without the stages that they found made."""
    results = [outcomes[trial.name] for trial in trials if trial.arm == arm]
    farm = sum(r.provenance.accelerator_seconds for r in results if isinstance(r, EditResult))
    return farm + sum(r.accelerator_seconds for r in results if isinstance(r, Drawn))


def describe_arms(
    arms: Iterable[Arm], trials: Sequence[Runnable], outcomes: Outcomes
) -> dict[str, dict[str, Any]]:
    """Of each arm its method, parameters, configuration and cost, as JSON has them."""
    configs = {trial.arm.name: trial.config.model_dump(mode="json") for trial in trials}
    return {
        arm.name: {
            "method": arm.method,
            "parameters": arm.parameters,
            "config": configs[arm.name],
            "accelerator_seconds": spent(arm, trials, outcomes),
        }
        for arm in arms
    }


def provenance_of(models: ModelSet, outcomes: Outcomes, *, seed: int) -> dict[str, Any]:
    """Command, seed, versions, weights, machine and processes of a run."""
    done = [o.provenance for o in outcomes.values() if isinstance(o, EditResult)]
    return {
        "command": command_line(),
        "seed": seed,
        "model_set": models.name,
        "weights": models.digests,
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "trainer_pids": sorted({p.trainer_pid for p in done}),
        "backbone_pids": sorted({pid for p in done for pid in p.backbone_pids}),
    }
