"""The choice of a method in the evaluation: what was chosen, measured as that method is."""

import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from farm.calls import Executor
from farm.errors import InvalidRequestError
from farm.results import EditResult
from farm.runner import PreparedEdit, load_result
from farm.runner.auto import RESULT, AutoRun
from farm.zoo.scenes.edits import EditTruth
from jobs.evaluation.finished import Finished
from jobs.evaluation.measures import Bounds, Found, Image, Measures, measures_of

AUTO = "auto"


class AutoMeasures:
    """See `jobs.evaluation.measures.Measures`.

    Args:
        known: of the methods that may be chosen.
    """

    def __init__(self, known: Mapping[str, Measures]) -> None:
        self._known = known

    def same_bounds(self, prepared: PreparedEdit) -> Hashable:
        return (AUTO, prepared.edit_id)  # what is chosen says whose bounds these are

    def bounds(self, executor: Executor, edit: Finished, source: Image) -> Bounds:
        method, chosen = _chosen(edit)
        return measures_of(method, self._known).bounds(executor, chosen, source)

    def found(self, edit: Finished, truth: EditTruth) -> Found:
        method, chosen = _chosen(edit)
        found = measures_of(method, self._known).found(chosen, truth)
        chose = {f"chose_{name}": float(name == method) for name in told(edit)["tried"] or [method]}
        return replace(found, figures={**found.figures, **chose})


def told(edit: Finished) -> dict[str, Any]:
    """What an edit says of its choice."""
    return json.loads(edit.output(RESULT))


def nested_results(edit: Finished) -> list[EditResult]:
    """What was tried and what was done, as far as it is still in the store."""
    about = told(edit)
    ids = {about["edit_id"], *(tried["edit_id"] for tried in about["tried"].values())}
    found = [load_result(edit.store, edit.tenant, edit_id) for edit_id in sorted(ids)]
    return [result for result in found if result is not None]


def joint_cost(results: Sequence[EditResult], costs: Mapping[str, float]) -> float:
    """Accelerator seconds of some edits, each stage that they share once; nan where not known."""
    digests = {digest for result in results for digest in result.provenance.stages.values()}
    editing = (r.provenance.stage_accelerator_seconds.get("editing", math.nan) for r in results)
    return sum(editing) + sum(costs.get(digest, math.nan) for digest in digests)


def chosen_shares(edits: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Share of edits by the method that was chosen, of entries of an evaluation's `edits`."""
    counted = [edit for edit in edits if edit.get("error") is None]
    names = {name for edit in counted for name in edit if name.startswith("chose_")}
    return {
        name.removeprefix("chose_"): sum(edit.get(name) or 0.0 for edit in counted) / len(counted)
        for name in sorted(names)
    }


def _chosen(edit: Finished) -> tuple[str, Finished]:
    """The method that did the edit, and its edit: the files are its own, under other keys."""
    run = edit.prepared.method
    if not isinstance(run, AutoRun):
        raise InvalidRequestError(f"found an edit by {edit.prepared.request.method}, expected auto")
    method = told(edit)["chosen"]
    full = next(one.full for one in run.candidates if one.method == method)
    return method, replace(edit, prepared=full)
