"""Choosing a method: each is tried, the results are ranked, the best does the edit.

What is tried are edits of their own: committed, found by whoever asks for the same, and their
stages are those of any other edit, so that the edit in full begins where the trial ended.
"""

import difflib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from farm.errors import (
    BudgetExceededError,
    EditCancelledError,
    EditFailedError,
    InvalidRequestError,
)
from farm.images import decode_image, fit_to_model
from farm.masks import decode_mask
from farm.progress import Progress
from farm.regions import RegionsClient
from farm.requests import AutoRequest, EditRequest, parse_request
from farm.runner.method import (
    NestedEdit,
    Outputs,
    PreparedEdit,
    ReadStage,
    StagePlan,
    Steps,
    Workbench,
)
from farm.runner.ranking import (
    Standing,
    Weights,
    agreed_region,
    background_kept,
    ranked,
    reasons,
    standing,
)
from farm.zoo.model_sets import ModelSet

VERSION = 1
RESULT = "result.json"
STAGE = "auto"
CHEAP: Mapping[str, Mapping[str, Any]] = {
    # all timesteps at once, two optimiser steps each
    "style_diffusion": {"training": "forced", "forced_steps": 2},
    # the analysis and the table of losses are those of the edit in full; one render in full
    "learnable_regions": {"sizes": "argmin", "finalists": 1, "draws": 1},
    # codes and learned prompt are those of the edit in full; one drawing, as CLIP would rank too
    # well what CLIP has chosen among several
    "edit_infinity": {"train_lora": False, "use_lora": False, "candidates": 1},
}
"""Parameters of a method's trial."""
_STOPS = (EditCancelledError, BudgetExceededError)
_FAILURES = (EditFailedError, InvalidRequestError)
_OWN = {"metrics.json", RESULT}
_CHANGED = 0.1
_COMMON = (
    *("image", "source_prompt", "target_prompt", "target_word"),
    *("seed", "model_set", "priority", "deterministic"),
)


class AutoConfig(BaseModel):
    """Numbers of the choice; other weights were no better (docs/auto.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effort: Literal["cheap", "full"] = "cheap"
    text_weight: float = 1.0
    background_weight: float = 0.1
    structure_weight: float = 0.1

    @property
    def weights(self) -> Weights:
        return Weights(self.text_weight, self.background_weight, self.structure_weight)


@dataclass(frozen=True)
class Candidate:
    """A method that can do the edit.

    Attributes:
        method: its name.
        trial: what is done to compare it.
        full: what is done if it is chosen.
    """

    method: str
    trial: PreparedEdit
    full: PreparedEdit


@dataclass(frozen=True)
class AutoRun:
    """A checked choice."""

    request: AutoRequest
    config: AutoConfig
    candidates: tuple[Candidate, ...]
    refused: Mapping[str, str]
    """Methods that cannot do the edit, and why."""
    prompts: tuple[tuple[int, ...], tuple[int, ...]]
    """Tokens of source and target for CLIP."""
    version: int = VERSION
    parts: tuple[str, ...] = ("clip", "scorer")

    @property
    def stages(self) -> Sequence[StagePlan]:
        return ()  # those of the candidates are their own

    @property
    def depends(self) -> Mapping[str, Any]:
        tried = {c.method: [c.trial.edit_id, c.full.edit_id] for c in self.candidates}
        return {"candidates": tried, "config": self.config.model_dump(mode="json")}

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        del bench, read, checkpoint
        raise InvalidRequestError(f"found stage {stage!r}, expected none: auto has none of its own")

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        del read
        total = len(self.candidates) + 1
        tried: dict[str, NestedEdit] = {}
        refused = dict(self.refused)
        for number, candidate in enumerate(self.candidates, start=1):
            if len(self.candidates) == 1:
                break  # nothing to compare it with
            try:
                tried[candidate.method] = bench.nested(candidate.trial, f"try.{candidate.method}")
            except _FAILURES as error:
                if isinstance(error, _STOPS):
                    raise
                refused[candidate.method] = error.message
            yield Progress(STAGE, number, total)
        standings = self._compared(bench, tried)
        order = ranked(standings) or [c.method for c in self.candidates]
        chosen, done = self._done(bench, order, refused)
        yield Progress(STAGE, total, total)
        return _outputs(done, self._told(chosen, done, tried, standings, refused))

    def _compared(self, bench: Workbench, tried: Mapping[str, NestedEdit]) -> dict[str, Standing]:
        """How each result does; nothing is asked where there is one alone."""
        if len(tried) < 2:
            return dict.fromkeys(tried, Standing(0.0, 1.0, 1.0, 0.0))
        client = RegionsClient(
            bench.executor, bench.model_set.spec, alone=bench.request.deterministic
        )
        texts = (client.score_text(self.prompts[0]), client.score_text(self.prompts[1]))
        pictures = [decode_image(one.read("edited.png")).image for one in tried.values()]
        size = bench.model_set.spec.image_size
        squares = [fit_to_model(picture, size)[0] for picture in pictures]
        source, *scores = client.score_images([bench.square, *squares])
        region = agreed_region(
            [
                _mask(one, bench.square, new)
                for one, new in zip(tried.values(), squares, strict=True)
            ]
        )
        kept = [background_kept(square, bench.square, region) for square in squares]
        found = [
            standing(score, source, texts, background, self.config.weights)
            for score, background in zip(scores, kept, strict=True)
        ]
        return dict(zip(tried, found, strict=True))

    def _done(
        self, bench: Workbench, order: Sequence[str], refused: dict[str, str]
    ) -> tuple[str, NestedEdit]:
        """The edit by the best method; by the next where that fails."""
        by_method = {candidate.method: candidate for candidate in self.candidates}
        for method in order:
            try:
                return method, bench.nested(by_method[method].full, method)
            except _FAILURES as error:
                if isinstance(error, _STOPS):
                    raise
                refused[method] = error.message
        raise EditFailedError(
            f"no method could do the edit: {_listed(refused)}; try another seed, or name a method"
        )

    def _told(
        self,
        chosen: str,
        done: NestedEdit,
        tried: Mapping[str, NestedEdit],
        standings: Mapping[str, Standing],
        refused: Mapping[str, str],
    ) -> dict[str, Any]:
        """result.json."""
        runners_up = [name for name in ranked(standings) if name != chosen]
        return {
            "chosen": chosen,
            "edit_id": done.result.edit_id,
            "effort": self.config.effort,
            "reasons": reasons(chosen, standings)
            if chosen in standings and len(standings) > 1
            else [f"{chosen} is the only method that could be tried"],
            "runners_up": runners_up,
            "tried": {
                name: {
                    "edit_id": one.result.edit_id,
                    "accelerator_seconds": one.result.provenance.accelerator_seconds,
                    **standings[name].figures(),
                }
                for name, one in tried.items()
            },
            "refused": dict(refused),
            "weights": {
                "text": self.config.text_weight,
                "background": self.config.background_weight,
                "structure": self.config.structure_weight,
            },
        }


def plan_auto(
    request: AutoRequest, model_set: ModelSet, check: Callable[[EditRequest], PreparedEdit]
) -> AutoRun:
    """Which methods can do an edit, each as two checked edits.

    Args:
        request: what is asked.
        model_set: whose networks decide what there is.
        check: makes a request of a method an edit (`farm.runner.prepare`).

    Raises:
        InvalidRequestError: no method can, or several can and there is no CLIP to rank them.
    """
    parameters = request.parameters
    given = parameters.model_dump(exclude={"methods", "settings"}, exclude_none=True)
    config = AutoConfig(**given)
    wanted = parameters.methods or tuple(CHEAP)
    candidates: list[Candidate] = []
    refused: dict[str, str] = {}
    for method in wanted:
        missing = _missing(method, model_set)
        if missing is not None:
            refused[method] = missing
            continue
        try:
            full = check(request_of(method, request, {}))
            trial = _trial(method, request, check) if config.effort == "cheap" else None
            candidates.append(Candidate(method, trial or full, full))
        except InvalidRequestError as error:
            refused[method] = error.message
    if not candidates:
        raise InvalidRequestError(
            f"auto: model set {model_set.name} has no method for this edit ({_listed(refused)}): "
            "mend what is said, or take a model set with more networks"
        )
    if len(candidates) > 1 and model_set.spec.regions is None:
        raise InvalidRequestError(
            f"auto: model set {model_set.name} has no CLIP to rank results with (it comes with the "
            f"networks of learnable_regions): name one of "
            f"{', '.join(c.method for c in candidates)} as the method"
        )
    encode = model_set.tokenizer.encode
    prompts = [tuple(encode(text).ids) for text in (request.source_prompt, request.target_prompt)]
    return AutoRun(request, config, tuple(candidates), refused, (prompts[0], prompts[1]))


def with_nested(prepared: PreparedEdit) -> list[PreparedEdit]:
    """An edit behind all edits of their own that it may do on its way."""
    method = prepared.method
    candidates = method.candidates if isinstance(method, AutoRun) else ()
    return [*(each for c in candidates for each in (c.trial, c.full)), prepared]


def nested_ids(told: bytes) -> list[str]:
    """The edits of their own that a choice led to, as its `result.json` names them."""
    facts = json.loads(told)
    return [facts["edit_id"], *(one["edit_id"] for one in facts["tried"].values())]


def changed_source_words(source_prompt: str, target_prompt: str) -> str | None:
    """The first words in a row of the source prompt that the target has not; None for none."""
    source, target = source_prompt.split(), target_prompt.split()
    matcher = difflib.SequenceMatcher(None, source, target, autojunk=False)
    for tag, begin, end, _, _ in matcher.get_opcodes():
        if tag in ("replace", "delete"):
            return " ".join(source[begin:end])
    return None


def _trial(
    method: str, request: AutoRequest, check: Callable[[EditRequest], PreparedEdit]
) -> PreparedEdit | None:
    """The cheap edit; None where the request's settings leave no room for it."""
    try:
        return check(request_of(method, request, CHEAP[method]))
    except InvalidRequestError:
        return None


def request_of(method: str, request: AutoRequest, cheap: Mapping[str, Any]) -> EditRequest:
    """The request of one method that `auto` makes of its own.

    Args:
        method: to choose from.
        request: with the settings of single methods.
        cheap: parameters that take the place of those settings.

    Raises:
        InvalidRequestError: the method does not take the settings, or the edit.
    """
    fields: dict[str, Any] = {name: getattr(request, name) for name in _COMMON}
    if method == "edit_infinity":  # it is told the source's word
        fields["target_word"] = changed_source_words(request.source_prompt, request.target_prompt)
    settings: Mapping[str, Mapping[str, Any]] = {**request.parameters.settings}
    parameters = {**settings.get(method, {}), **cheap}
    return parse_request({**fields, "method": method, "parameters": parameters})


def _missing(method: str, model_set: ModelSet) -> str | None:
    """What networks of a method the model set has not."""
    spec = model_set.spec
    has = {
        "style_diffusion": spec.text_to_image,
        "learnable_regions": spec.regions is not None,
        "edit_infinity": spec.infinity is not None,
    }
    return None if has[method] else "the model set has not its networks"


def _mask(
    edit: NestedEdit,
    source: Float[Tensor, "3 size size"],
    edited: Float[Tensor, "3 size size"],
) -> Float[Tensor, "size size"]:
    """Where a result was to change, as its method says; where it changed if it says nothing.

    A method's mask has the size of the original or is the model's square already.
    """
    if "mask.png" not in edit.result.files:
        return ((edited - source).abs().amax(dim=0) > _CHANGED).float()
    mask, _ = fit_to_model(decode_mask(edit.read("mask.png")), source.shape[-1])
    return (mask[0] > 0.5).float()


def _outputs(done: NestedEdit, told: Mapping[str, Any]) -> Outputs:
    """The chosen edit's files as they are, its figures, and what was said of the choice."""
    metrics = json.loads(done.read("metrics.json"))
    figures = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    files = {name: done.read(name) for name in done.result.files if name not in _OWN}
    files[RESULT] = json.dumps(told, indent=1).encode()
    edited = decode_image(done.read("edited.png"))
    return Outputs(edited.image, {}, figures, files)


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{method}: {why}" for method, why in refused.items()) or "none is there"
