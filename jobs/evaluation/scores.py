"""Every figure of a finished trial; who does what of the measuring."""

import math
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from farm.errors import FarmError
from farm.metrics.psnr import psnr
from farm.results import EditResult
from farm.storage.store import Store
from farm.zoo.evaluation import EditScore
from farm.zoo.judge import Judge
from farm.zoo.scoring import fidelity, is_success, judge_edit, score_region
from jobs.bars import bar
from jobs.batch import EditRunner
from jobs.evaluation.auto import AUTO, AutoMeasures, joint_cost, nested_results
from jobs.evaluation.baselines import SDEDIT, Drawn
from jobs.evaluation.cases import Trial
from jobs.evaluation.edit_infinity import EditInfinityMeasures
from jobs.evaluation.finished import Finished
from jobs.evaluation.learnable_regions import LearnableRegionsMeasures
from jobs.evaluation.measures import (
    NOTHING,
    BaselineMeasures,
    Bounds,
    Found,
    Image,
    Measures,
    measures_of,
)
from jobs.evaluation.running import Outcome, Outcomes, stage_costs, whole_cost
from jobs.evaluation.style_diffusion import StyleDiffusionMeasures

_METHODS: Mapping[str, Measures] = {
    "style_diffusion": StyleDiffusionMeasures(),
    "learnable_regions": LearnableRegionsMeasures(),
    "edit_infinity": EditInfinityMeasures(),
}
MEASURES: Mapping[str, Measures] = {
    **_METHODS,
    AUTO: AutoMeasures(_METHODS),
    SDEDIT: BaselineMeasures(),
}


def all_bounds(
    runner: EditRunner,
    store: Store,
    tenant: str,
    trials: Iterable[Trial],
    outcomes: Outcomes,
    *,
    threads: int,
) -> dict[str, Bounds]:
    """By trial, for those that were edited; equal ones are measured once.

    Several at once share the backbone's batches.
    """
    edited = [trial for trial in trials if not isinstance(outcomes[trial.name], FarmError)]
    first: dict[Hashable, Trial] = {}
    for trial in edited:
        first.setdefault(_key(trial), trial)

    def measure(trial: Trial) -> Bounds:
        measures = measures_of(trial.arm.method, MEASURES)
        outcome = outcomes[trial.name]
        result = outcome if isinstance(outcome, EditResult) else None
        finished = Finished(store, tenant, trial.prepared, result)
        return measures.bounds(runner.executor(), finished, trial.case.truth.source.images[0])

    found: dict[Hashable, Bounds] = {}
    with ThreadPoolExecutor(threads) as pool, bar("sources", len(first)) as show:
        for key, bounds in zip(first, pool.map(measure, first.values()), strict=True):
            found[key] = bounds
            show(len(found))
    return {trial.name: found[_key(trial)] for trial in edited}


def costs_of(
    trials: Iterable[Trial], outcomes: Outcomes, store: Store, tenant: str
) -> dict[str, float]:
    """What each stage cost that an edit of this run made, also an edit within another."""
    told: list[Outcome] = list(outcomes.values())
    for trial in trials:
        outcome = outcomes[trial.name]
        if trial.arm.method == AUTO and isinstance(outcome, EditResult):
            told += nested_results(Finished(store, tenant, trial.prepared, outcome))
    return stage_costs(told)


def _key(trial: Trial) -> Hashable:
    measures = measures_of(trial.arm.method, MEASURES)
    return (trial.case.name, measures.same_bounds(trial.prepared))


def score_trial(
    trial: Trial,
    outcome: Outcome,
    bounds: Bounds | None,
    store: Store,
    tenant: str,
    judge: Judge,
    costs: Mapping[str, float],
) -> EditScore:
    """All figures of definitions.md, and the method's own; of a failed edit its error.

    `costs` are those of `stage_costs`.
    """
    edit, truth = trial.case.edit, trial.case.truth
    about: dict[str, Any] = {
        "id": trial.case.name,
        "type": edit.type,
        "held_out": edit.held_out,
        "small": truth.region.mean().item() < 0.04,
        "objects": int(edit.source.count[0]),
        "source_prompt": edit.source_prompt,
        "target_prompt": edit.target_prompt,
    }
    if isinstance(outcome, FarmError) or bounds is None:
        return EditScore(**about, error=str(outcome))
    edited, found = _result(trial, outcome, store, tenant)
    cost: dict[str, Any] = _cost(outcome, costs)
    if trial.arm.method == AUTO and isinstance(outcome, EditResult):
        nested = nested_results(Finished(store, tenant, trial.prepared, outcome))
        cost = {"accelerator_seconds": joint_cost(nested, costs)}
    judgement = judge_edit(judge, edited, edit, truth)
    figures = fidelity(edited, bounds.autoencoded, truth)
    region = score_region(truth, found.mask, found.map)
    source = truth.source.images

    def whole(picture: Tensor | None) -> float:
        return math.nan if picture is None else psnr(picture[None], source).item()

    return EditScore(
        **about,
        success=float(is_success(judgement, figures)),
        asked=float(judgement.asked),
        outside_psnr=figures.outside,
        bound_psnr=figures.bound,
        inside_psnr=figures.inside,
        region_iou=region.iou,
        pointing=region.pointing,
        reconstruction_psnr=whole(found.reconstruction),
        reconstruction_bound_psnr=whole(bounds.autoencoded),
        more={**{name: whole(p) for name, p in bounds.others.items()}, **found.figures},
        **cost,
    )


def _result(
    trial: Trial, outcome: EditResult | Drawn, store: Store, tenant: str
) -> tuple[Image, Found]:
    if isinstance(outcome, Drawn):
        return outcome.image, NOTHING
    finished = Finished(store, tenant, trial.prepared, outcome)
    found = measures_of(trial.arm.method, MEASURES).found(finished, trial.case.truth)
    return finished.picture("edited.png"), found


def _cost(outcome: EditResult | Drawn, costs: Mapping[str, float]) -> dict[str, Any]:
    """Time and work of an edit that made all of its stages; else what the whole would have cost."""
    if isinstance(outcome, Drawn):
        names = ("seconds", "accelerator_seconds", "calls")
        return {name: getattr(outcome, name) for name in names}
    provenance = outcome.provenance
    whole = {"accelerator_seconds": whole_cost(outcome, costs)}
    if set(provenance.stages_made) != set(provenance.stages):
        return whole
    return {**whole, "seconds": provenance.seconds, "calls": provenance.work}


def judge_figures(
    judge: Judge, trials: Iterable[Trial], bounds: Mapping[str, Bounds]
) -> dict[str, float]:
    """How the judge itself does on this set: on sources left alone, and on true targets."""
    rows = [(trial.case, bounds[trial.name]) for trial in trials if trial.name in bounds]

    def success(number: int, picture: Tensor) -> bool:
        case, bound = rows[number]
        judgement = judge_edit(judge, picture, case.edit, case.truth)
        return is_success(judgement, fidelity(picture, bound.autoencoded, case.truth))

    unedited = [success(n, bound.autoencoded) for n, (_, bound) in enumerate(rows)]
    true = [success(n, case.truth.target.images[0]) for n, (case, _) in enumerate(rows)]
    number = max(1, len(rows))
    return {"unedited_success": sum(unedited) / number, "true_success": sum(true) / number}
