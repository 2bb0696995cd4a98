"""Edits of PIE-Bench as trials of an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from farm.errors import FarmError, InvalidManifestError, InvalidRequestError
from farm.requests import parse_request
from farm.requests.parsing import DEFAULT_METHOD
from farm.runner import PreparedEdit, prepare
from farm.zoo.model_sets import ModelSet
from jobs.evaluation.arms import Arm
from jobs.evaluation.baselines import BASELINES, BaselineEdit, sdedit_config
from jobs.importers.pie import PieCase, read_cases, request_fields
from jobs.manifests import BrokenLine


@dataclass(frozen=True)
class PieTrial:
    """One edit of the benchmark as one arm does it; see `jobs.evaluation.running.Runnable`.

    Attributes:
        case: with the mask, which only the evaluation knows.
        image: the picture's file.
    """

    name: str
    arm: Arm
    case: PieCase
    image: bytes
    prepared: PreparedEdit
    baseline: BaselineEdit | None = None

    @property
    def config(self) -> BaseModel:
        """Everything configurable with all defaults filled in."""
        return self.prepared.method.config if self.baseline is None else self.baseline.config


@dataclass(frozen=True)
class Refused:
    """An edit of the benchmark that an arm cannot even begin."""

    arm: Arm
    case: PieCase
    error: FarmError


def read_benchmark(folder: Path, edits: int | None) -> list[PieCase]:
    """The benchmark's cases, or the first of them.

    Raises:
        InvalidManifestError: the folder is not the benchmark's, an entry is wrong, or a picture is
            missing: nothing is left out in silence.
    """
    cases: list[PieCase] = []
    wrong: list[str] = []
    for case in read_cases(folder):
        if edits is not None and len(cases) + len(wrong) >= edits:
            break
        if isinstance(case, BrokenLine):
            wrong.append(case.error.message)
        elif not (root(folder) / case.image).is_file():
            wrong.append(f"entry {case.name!r}: there is no {case.image}")
        else:
            cases.append(case)
    if wrong or not cases:
        raise InvalidManifestError(
            f"{folder}: {len(wrong)} entries are wrong, first: "
            f"{'; '.join(wrong[:3]) or 'there are none'}; fetch the benchmark again"
        )
    return cases


def root(folder: Path) -> Path:
    """The benchmark's folder, also where its mapping file is named."""
    return folder if folder.is_dir() else folder.parent


def make_trials(
    arms: Sequence[Arm], cases: Sequence[PieCase], folder: Path, models: ModelSet
) -> tuple[list[PieTrial], list[Refused]]:
    """Every case in every arm, arm by arm, and what an arm refuses.

    Raises:
        InvalidRequestError: an arm refuses every case: its parameters are wrong.
    """
    pictures = {case.name: (root(folder) / case.image).read_bytes() for case in cases}
    trials: list[PieTrial] = []
    refused: list[Refused] = []
    for arm in arms:
        found: list[PieTrial] = []
        for case in cases:
            try:
                found.append(_trial(arm, case, pictures[case.name], models))
            except InvalidRequestError as error:
                refused.append(Refused(arm, case, error))
        if not found:
            raise InvalidRequestError(f"{arm.name}: {refused[-1].error}")
        trials += found
    return trials, refused


def _trial(arm: Arm, case: PieCase, image: bytes, models: ModelSet) -> PieTrial:
    is_baseline = arm.method in BASELINES
    method = DEFAULT_METHOD if is_baseline else arm.method
    fields: dict[str, Any] = {**request_fields(case, method), "model_set": models.name}
    if not is_baseline:
        fields["parameters"] = {**fields["parameters"], **arm.parameters}
    prepared = prepare(parse_request(fields), image, models)
    name, baseline = f"{arm.name}:{case.name}", None
    if is_baseline:
        config = sdedit_config(models, arm.parameters)
        baseline = BaselineEdit(name, config, case.target_prompt, image, models)
    return PieTrial(name, arm, case, image, prepared, baseline)
