"""EditInfinity as the runner sees it: four stages, each of which later edits find, and the edit."""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.spec import InfinitySpec
from farm.errors import InvalidImageError, InvalidRequestError
from farm.images import DecodedImage
from farm.masks import decode_mask
from farm.methods.edit_infinity import METHOD_VERSION
from farm.methods.edit_infinity.analysis import attention_analysis, candidates_sheet
from farm.methods.edit_infinity.attention import WordAttention
from farm.methods.edit_infinity.client import InfinityClient
from farm.methods.edit_infinity.codes import SourceCodes, make_codes
from farm.methods.edit_infinity.config import EditInfinityConfig
from farm.methods.edit_infinity.editing import EditOutput, restored
from farm.methods.edit_infinity.framing import Frame, fit, frame_of, unfit
from farm.methods.edit_infinity.lora import LearnedLora
from farm.methods.edit_infinity.lora_format import (
    ADAPTER_FILE,
    CONFIG_FILE,
    LoraShapes,
    peft_config,
    peft_tensors,
)
from farm.methods.edit_infinity.plan import (
    ATTENTION,
    CODES,
    LORA,
    PROMPT,
    EditPlan,
    Wish,
    edit_depends,
    missing_stage,
    must_exist,
    plan_edit,
    stage_depends,
    with_iterations,
)
from farm.methods.edit_infinity.prompt import LearnedPrompt
from farm.methods.edit_infinity.region import EditRegion, from_attention, from_mask, whole
from farm.methods.edit_infinity.stages import Session
from farm.methods.edit_infinity.training import TrainingState
from farm.progress import Picture, Progress, framed
from farm.regions import RegionsClient
from farm.requests import EditInfinityRequest
from farm.runner.clip_choice import PARTS, ClipChooser, chooser_prompts
from farm.runner.method import Files, Outputs, ReadStage, StagePlan, Steps, Workbench
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.zoo.model_sets import ModelSet

_LOOKED_FOR = (*range(1, 51), *range(60, 201, 10))
"""Lengths of trainings that are looked for in the store where the one asked for is not there."""


@dataclass(frozen=True)
class EditInfinityRun:
    """A checked edit by EditInfinity."""

    request: EditInfinityRequest
    config: EditInfinityConfig
    spec: InfinitySpec
    plan: EditPlan
    region: EditRegion | None
    """By the user's mask; None where there is none, or where it is not asked."""
    mask: bytes | None
    """The user's mask as handed in, where it decides the region."""
    chooser: Mapping[str, str] | None = None
    """Digests of the weights that choose among candidates; None where there is one alone."""
    version: int = METHOD_VERSION
    parts: tuple[str, ...] = ("infinity", "bsq_vae", "t5")

    @property
    def stages(self) -> Sequence[StagePlan]:
        return self._stages(self.config)

    @property
    def depends(self) -> Mapping[str, Any]:
        drawn = None if self.mask is None else hashlib.sha256(self.mask).hexdigest()
        mask = {"mask": drawn, "mask_edits": self.request.mask_edits} if drawn else {}
        chosen = {} if self.chooser is None else {"chooser": dict(self.chooser)}
        return edit_depends(self.plan, self.config) | mask | chosen

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        session = self._session(bench)
        if stage in must_exist(self.plan, self.config):
            found = {n: bench.is_made(self._stages(self.config, stage, n)) for n in _LOOKED_FOR}
            raise InvalidRequestError(missing_stage(stage, found, self.config))
        state = None if checkpoint is None else TrainingState.from_tensors(checkpoint)
        if stage == CODES:
            frame = self._frame(bench.original)
            image = fit(bench.original.image, frame)
            layout = self.spec.schedule_for(*bench.original.image.shape[-2:])
            steps = make_codes(image, layout, session.client)
            codes = yield from framed(steps, self._in_original(bench))
            return _packed(stage, codes.to_tensors(), codes.metadata())
        codes = unpack_codes(read(CODES))
        if stage == PROMPT:
            steps = session.prompt_stage(codes, state)
            prompt = yield from framed(steps, self._in_original(bench))
            return _packed(stage, prompt.to_tensors(), prompt.metadata())
        if stage == LORA:
            steps = session.lora_stage(codes, self._prompt(read), state)
            lora = yield from framed(steps, self._in_original(bench))
            return _packed(stage, lora.to_tensors(), lora.metadata())
        attention = yield from session.attention_stage(codes)
        return _packed(stage, attention.to_tensors(), {})

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        codes, prompt, lora = unpack_codes(read(CODES)), self._prompt(read), self._lora(read)
        score = unpack_attention(read(ATTENTION)).map if ATTENTION in self.plan.makes else None
        region = self._region(codes, score)
        steps = self._session(bench).edit_stage(codes, region, prompt, lora)
        output = yield from framed(steps, self._in_original(bench))
        original, frame = bench.original.image, self._frame(bench.original)
        edited = restored(output, original, frame, self.config.editing, stride=self.spec.stride)
        return Outputs(
            edited=edited,
            pictures=self._pictures(original, frame, codes, score, region) | _candidates(output),
            figures=_figures(output, codes, fit(original, frame), prompt, lora),
            files={**self._files(region, score, prompt, lora), **_said(output)},
        )

    def _stages(
        self, config: EditInfinityConfig, last: str | None = None, iterations: int | None = None
    ) -> list[StagePlan]:
        """The stages up to one, which may be another training than the edit's own."""
        if last is not None and iterations is not None:
            config = with_iterations(config, last, iterations)
        depends = stage_depends(self.plan, config)
        depends[CODES] |= {"model": self.spec.facts.model_dump(mode="json")}
        stages = [StagePlan(name, depends[name]) for name in self.plan.makes]
        return stages if last is None else stages[: self.plan.makes.index(last) + 1]

    def _session(self, bench: Workbench) -> Session:
        client = InfinityClient(
            bench.executor,
            self.spec,
            alone=self.request.deterministic,
            biases=self.config.attention_bias,
        )
        return Session(self.plan, client, self.config, self.request.seed, self._chooser(bench))

    def _chooser(self, bench: Workbench) -> ClipChooser | None:
        if self.chooser is None:
            return None
        prompts = chooser_prompts(
            self.request.source_prompt, self.request.target_prompt, bench.model_set
        )
        spec, alone = bench.model_set.spec, self.request.deterministic
        client = RegionsClient(bench.executor, spec, alone=alone)
        return ClipChooser(client, prompts, self.config.editing.structure_weight)

    def _frame(self, original: DecodedImage) -> Frame:
        height, width = original.image.shape[-2:]
        return frame_of(height, width, self.spec.schedule_for(height, width).image_size)

    def _in_original(self, bench: Workbench) -> Callable[[Picture], Picture]:
        """Brings a picture of the layout's size to where it will lie in the original."""
        original, frame = bench.original.image, self._frame(bench.original)
        return lambda picture: unfit(picture, original, frame)

    def _region(self, codes: SourceCodes, score: Tensor | None) -> EditRegion:
        layout = self.spec.schedule(codes.layout)
        if self.region is not None:
            return self.region
        if score is None:
            return whole(layout)
        return from_attention(score, layout, self.config.editing)

    def _prompt(self, read: ReadStage) -> LearnedPrompt | None:
        return unpack_prompt(read(PROMPT)) if PROMPT in self.plan.makes else None

    def _lora(self, read: ReadStage) -> LearnedLora | None:
        return unpack_lora(read(LORA)) if LORA in self.plan.makes else None

    def _pictures(
        self,
        original: Float[Tensor, "3 height width"],
        frame: Frame,
        codes: SourceCodes,
        score: Float[Tensor, "cells_high cells_wide"] | None,
        region: EditRegion,
    ) -> dict[str, Tensor]:
        """Mask and map at the original's size, so that both can be laid over it."""
        nowhere = torch.zeros(1, *original.shape[-2:])
        inside = F.interpolate(region.inside.float()[None, None], frame.size)[0]
        pictures = {
            "mask": (unfit(inside, nowhere, frame) > 0.5).float(),
            "reconstruction": unfit(codes.image, original, frame),
        }
        if score is not None:
            shown = F.interpolate(score[None, None], frame.size, mode="bilinear")[0]
            shown = (shown - shown.min()) / (shown.max() - shown.min()).clamp_min(1e-12)
            pictures["attention"] = unfit(shown, nowhere, frame)
            pictures["attention_analysis"] = attention_analysis(
                fit(original, frame), score, region.inside
            )
        return pictures

    def _files(
        self,
        region: EditRegion,
        score: Tensor | None,
        prompt: LearnedPrompt | None,
        lora: LearnedLora | None,
    ) -> Files:
        """What the examples leave behind: weights, the map and the weight tensor."""
        tensors = {"weight": region.weight} | ({} if score is None else {"attention_map": score})
        files = {"weight_tensor.safetensors": pack_tensors(tensors, {})}
        editing = self.config.editing
        if prompt is not None:
            rows = prompt.rows(editing.use_embedding_iter)
            files["learned_prompt.safetensors"] = pack_tensors({"rows": rows.contiguous()}, {})
        if lora is not None:
            shapes = LoraShapes.of(self.spec, self.config.lora.lora_r)
            adapters = peft_tensors(lora.flat(editing.use_lora_iter), shapes)
            files[ADAPTER_FILE] = pack_tensors(adapters, {"format": "pt"})
            files[CONFIG_FILE] = peft_config(self.config.lora).encode()
        return files


def plan_edit_infinity(
    request: EditInfinityRequest, model_set: ModelSet, original: DecodedImage, mask: bytes | None
) -> EditInfinityRun:
    """A request checked against the method, the model set and its picture.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    if request.mask is not None and mask is None:
        raise InvalidImageError(f"the mask {request.mask!r} was not handed in with the request")
    spec = model_set.infinity
    config = model_set.edit_infinity.with_parameters(request.parameters)
    wish = Wish(request.source_prompt, request.target_prompt, request.target_word, mask is not None)
    plan = plan_edit(wish, model_set.text_tokenizer, spec, config)
    run = EditInfinityRun(
        request, config, spec, plan, None, None, _choosing(config, plan, request, model_set)
    )
    if mask is None or plan.region != "mask":
        return run
    size = (original.image.shape[-2], original.image.shape[-1])
    layout = spec.schedule_for(*size)
    region = from_mask(
        decode_mask(mask),
        frame_of(*size, layout.image_size),
        size,
        layout,
        config.editing,
        edits=request.mask_edits,
    )
    return replace(run, region=region, mask=mask)


def _choosing(
    config: EditInfinityConfig, plan: EditPlan, request: EditInfinityRequest, model_set: ModelSet
) -> Mapping[str, str] | None:
    """Weights that choose among candidates; None where there is one alone."""
    if config.editing.candidates == 1 or plan.region == "attention":
        return None
    chooser_prompts(request.source_prompt, request.target_prompt, model_set)
    return model_set.digests_of(PARTS)


def unpack_codes(files: Files) -> SourceCodes:
    """The source's codes among the files of their stage.

    Raises:
        CorruptArtifactError: they are not whole.
    """
    return SourceCodes.from_tensors(*unpack_tensors(files[_file(CODES)]))


def unpack_prompt(files: Files) -> LearnedPrompt:
    """The learned prompt among the files of its stage.

    Raises:
        CorruptArtifactError: it is not whole.
    """
    return LearnedPrompt.from_tensors(*unpack_tensors(files[_file(PROMPT)]))


def unpack_lora(files: Files) -> LearnedLora:
    """The adapters among the files of their stage.

    Raises:
        CorruptArtifactError: they are not whole.
    """
    return LearnedLora.from_tensors(*unpack_tensors(files[_file(LORA)]))


def unpack_attention(files: Files) -> WordAttention:
    """The map among the files of its stage.

    Raises:
        CorruptArtifactError: it is not whole.
    """
    return WordAttention.from_tensors(unpack_tensors(files[_file(ATTENTION)])[0])


def _packed(stage: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Files:
    return {_file(stage): pack_tensors(dict(tensors), dict(about))}


def _file(stage: str) -> str:
    return f"{stage}.safetensors"


def _candidates(output: EditOutput) -> dict[str, Tensor]:
    """All drawings beside each other; nothing where there is one alone."""
    if output.choice is None:
        return {}
    order = output.choice.best_first
    return {"candidates": candidates_sheet([output.drawings[number] for number in order])}


def _said(output: EditOutput) -> Files:
    """What was said of each drawing, the chosen one first."""
    if output.choice is None:
        return {}
    found = [
        {"drawing": number, **output.choice.candidates[number].figures()}
        for number in output.choice.best_first
    ]
    return {"candidates.json": json.dumps(found, indent=1).encode()}


def _figures(
    output: EditOutput,
    codes: SourceCodes,
    source: Float[Tensor, "3 height width"],
    prompt: LearnedPrompt | None,
    lora: LearnedLora | None,
) -> dict[str, float]:
    """The edit's own figures, and what the inversion brought: share of bits foretold right."""
    error = (codes.image - source).square().mean().clamp_min(1e-10)
    figures = output.figures | {"reconstruction_psnr": -10 * error.log10().item()}
    if prompt is not None:
        figures["bit_accuracy_before"] = prompt.accuracy_before
        figures["bit_accuracy_prompt"] = prompt.accuracy_after
    if lora is not None:
        figures["bit_accuracy_lora"] = lora.accuracy_after
    return figures
