"""Learnable Regions as the runner sees it: the source's analysis, the search, and the edit."""

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from farm.errors import CorruptArtifactError, InvalidRequestError
from farm.images import fit_to_model
from farm.methods.learnable_regions import METHOD_VERSION
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import analyse
from farm.methods.learnable_regions.config import LearnableRegionsConfig
from farm.methods.learnable_regions.editing import RegionEdit, edit
from farm.methods.learnable_regions.figures import draw_attention, draw_boxes, draw_curve, report
from farm.methods.learnable_regions.plan import PromptPlan, check_config, plan_prompts, region_spec
from farm.methods.learnable_regions.search import search, tabulate
from farm.methods.learnable_regions.searched import (
    Search,
    SearchState,
    network_of,
    network_tensors,
)
from farm.methods.learnable_regions.work import needs_table
from farm.progress import Progress
from farm.regions import RegionsClient
from farm.requests.learnable_regions import LearnableRegionsRequest
from farm.runner.method import Files, Outputs, ReadStage, StagePlan, Steps, Workbench
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.zoo.model_sets import ModelSet

ANALYSIS, TABLE, SEARCH = "analysis", "table", "search"
_OF_TABLE = {"anchors", "loss", "render", "preview_steps", "quirks"}


@dataclass(frozen=True)
class LearnableRegionsRun:
    """A checked edit by Learnable Regions."""

    request: LearnableRegionsRequest
    config: LearnableRegionsConfig
    prompts: PromptPlan
    start: bytes | None = None
    """A stored search whose AnchorNet this one begins with."""
    version: int = METHOD_VERSION
    parts: tuple[str, ...] = ("vae", "clip", "inpainting", "dino", "caption_vit", "scorer")

    @property
    def stages(self) -> Sequence[StagePlan]:
        analysed = {
            "caption": self.prompts.source,
            "config": self.config.analysis.model_dump(mode="json"),
        }
        search = self.config.search
        tabled = {
            "target": self.prompts.target,
            "config": search.model_dump(mode="json", include=_OF_TABLE),
            "full": needs_table(search, has_start=self.start is not None),
        }
        searched = {
            "target": self.prompts.target,
            "config": search.model_dump(mode="json"),
            "start": None if self.start is None else hashlib.sha256(self.start).hexdigest(),
        }
        return (
            StagePlan(ANALYSIS, analysed),
            StagePlan(TABLE, tabled),
            StagePlan(SEARCH, searched),
        )

    @property
    def depends(self) -> Mapping[str, Any]:
        return {"config": self.config.selection.model_dump(mode="json")}

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        image, client, seed = bench.original.image, _client(bench), self.request.seed
        if stage == ANALYSIS:
            analysis = yield from analyse(
                image, self.prompts, client, self.config.analysis, seed=seed
            )
            return {_file(stage): pack_tensors(analysis.to_tensors())}
        state = None if checkpoint is None else SearchState.from_tensors(checkpoint)
        if stage == TABLE:
            state = yield from tabulate(
                image,
                _analysis(read),
                self.prompts,
                client,
                self.config,
                seed=seed,
                has_start=self.start is not None,
                checkpoint=state,
            )
            return {_file(stage): pack_tensors(state.to_tensors())}
        if state is None:
            state = unpack_table(read(TABLE))
        found = yield from search(
            image,
            _analysis(read),
            self.prompts,
            client,
            self.config,
            seed=seed,
            start=None if self.start is None else network_of(unpack_tensors(self.start)[0]),
            checkpoint=state,
        )
        return {_file(stage): pack_tensors(found.to_tensors())}

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        image = bench.original.image
        found = unpack_search(read(SEARCH))
        output = yield from edit(
            image, _analysis(read), found, _client(bench), self.config, seed=self.request.seed
        )
        return Outputs(
            edited=output.image,
            pictures=self._pictures(bench, output, found),
            figures=output.figures,
            files={
                "regions.json": json.dumps(
                    report(output, found) | {"shortened_prompts": dict(self.prompts.cut)}, indent=1
                ).encode(),
                "anchornet.safetensors": pack_tensors(network_tensors(output.network)),
            },
        )

    def _pictures(self, bench: Workbench, output: RegionEdit, found: Search) -> dict[str, Tensor]:
        image = bench.original.image
        size = region_spec(bench.model_set.spec).dino_size
        _, placement = fit_to_model(image, size, mode=self.config.analysis.fit)
        state = found.state
        pictures = {
            "mask": output.mask,
            "attention": draw_attention(image, state.saliency, state.anchors, placement),
        }
        if self.config.selection.draw_box:
            boxes = [candidate.region.box for candidate in output.candidates]
            pictures["boxes"] = draw_boxes(image, boxes, output.box)
        if len(found.curve) > 0:
            pictures["loss"] = draw_curve(found.curve)
        return pictures


def plan_learnable_regions(
    request: LearnableRegionsRequest, model_set: ModelSet
) -> LearnableRegionsRun:
    """A request checked against the method and the model set.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    parameters = request.parameters
    config = model_set.learnable_regions.with_parameters(parameters)
    check_config(config, model_set.spec)
    prompts = plan_prompts(
        model_set.tokenizer,
        request.source_prompt,
        request.target_prompt,
        config,
        parameters.long_prompt,
    )
    start = None if parameters.anchornet is None else _read_start(Path(parameters.anchornet))
    return LearnableRegionsRun(request, config, prompts, start)


def _read_start(path: Path) -> bytes:
    """A stored AnchorNet, looked at before any work.

    Raises:
        InvalidRequestError: the file is not there, or holds no AnchorNet.
    """
    try:
        data = path.read_bytes()
        network = network_of(unpack_tensors(data)[0])
    except (OSError, CorruptArtifactError) as error:
        raise InvalidRequestError(
            f"anchornet {str(path)!r} cannot be read ({error}): name the anchornet.safetensors of "
            "an earlier edit, or of python -m jobs.train_anchornet"
        ) from error
    if not network:
        raise InvalidRequestError(
            f"anchornet {str(path)!r} holds no AnchorNet: name the anchornet.safetensors of "
            "an earlier edit, or of python -m jobs.train_anchornet"
        )
    return data


def unpack_search(files: Files) -> Search:
    """The search among the files of its stage.

    Raises:
        CorruptArtifactError: it is not whole.
    """
    return Search.from_tensors(unpack_tensors(files[_file(SEARCH)])[0])


def unpack_table(files: Files) -> SearchState:
    """The loss table, with its anchors and boxes, among the files of its stage.

    Raises:
        CorruptArtifactError: it is not whole.
    """
    return SearchState.from_tensors(unpack_tensors(files[_file(TABLE)])[0])


def unpack_analysis(files: Files) -> Analysis:
    """The analysis among the files of its stage.

    Raises:
        CorruptArtifactError: it is not whole.
    """
    return Analysis.from_tensors(unpack_tensors(files[_file(ANALYSIS)])[0])


def _analysis(read: ReadStage) -> Analysis:
    return unpack_analysis(read(ANALYSIS))


def _file(stage: str) -> str:
    return f"{stage}.safetensors"


def _client(bench: Workbench) -> RegionsClient:
    return RegionsClient(bench.executor, bench.model_set.spec, alone=bench.request.deterministic)
