"""The edits of a set, each with its truth, and how every arm is asked to do them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from farm.images import encode_png
from farm.requests.parsing import DEFAULT_METHOD
from farm.runner import PreparedEdit, prepare
from farm.zoo.model_sets import ModelSet
from farm.zoo.scenes.edits import EditTruth, SceneEdit, edit_truth
from farm.zoo.scenes.requests import edit_name, edit_request
from jobs.evaluation.arms import Arm
from jobs.evaluation.baselines import BASELINES, BaselineEdit, sdedit_config


@dataclass(frozen=True)
class Case:
    """One edit of the set with everything that only the evaluation knows."""

    name: str
    edit: SceneEdit
    truth: EditTruth


@dataclass(frozen=True)
class Trial:
    """One case as one arm does it.

    Attributes:
        name: unique among all trials of a run.
        arm: who does it.
        case: what is done.
        prepared: what the farm is told of it; of a baseline, as StyleDiffusion would be.
        baseline: the edit of an arm that is no method of the farm.
    """

    name: str
    arm: Arm
    case: Case
    prepared: PreparedEdit
    baseline: BaselineEdit | None = None

    @property
    def config(self) -> BaseModel:
        """Everything configurable with all defaults filled in."""
        return self.prepared.method.config if self.baseline is None else self.baseline.config


def make_cases(edits: Iterable[SceneEdit]) -> list[Case]:
    """The set's edits, rendered."""
    return [
        Case(edit_name(edit, number), edit, edit_truth(edit))
        for number, edit in enumerate(edits, start=1)
    ]


def make_trials(arms: Sequence[Arm], cases: Sequence[Case], models: ModelSet) -> list[Trial]:
    """Every case in every arm, arm by arm, so that a stage that arms share is there in time.

    Raises:
        InvalidRequestError: an arm has a parameter that its method has not, or one out of range.
    """
    return [_trial(arm, case, models) for arm in arms for case in cases]


def _trial(arm: Arm, case: Case, models: ModelSet) -> Trial:
    is_baseline = arm.method in BASELINES
    request = edit_request(
        case.edit,
        case.name,
        model_set=models.name,
        parameters={} if is_baseline else arm.parameters,
        method=DEFAULT_METHOD if is_baseline else arm.method,
    )
    name, picture = f"{arm.name}:{case.name}", encode_png(case.truth.source.images[0])
    baseline = None
    if is_baseline:
        config = sdedit_config(models, arm.parameters)
        baseline = BaselineEdit(name, config, case.edit.target_prompt, picture, models)
    return Trial(name, arm, case, prepare(request, picture, models), baseline)
