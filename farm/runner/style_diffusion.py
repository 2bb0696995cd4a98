"""StyleDiffusion as the runner sees it: one stage, the inversion, and the edit."""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient
from farm.images import restore
from farm.masks import dilate, feather
from farm.methods.style_diffusion import METHOD_VERSION
from farm.methods.style_diffusion.cells import EditCell, configure, plan_cells
from farm.methods.style_diffusion.config import StyleDiffusionConfig
from farm.methods.style_diffusion.editing import EditOutput, edit_cells
from farm.methods.style_diffusion.inversion import invert
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.progress import Progress, framed
from farm.requests import StyleDiffusionRequest
from farm.runner.method import Files, Outputs, ReadStage, StagePlan, Steps, Workbench
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.zoo.model_sets import ModelSet

INVERSION = "inversion"
_FILE = "inversion.safetensors"


@dataclass(frozen=True)
class StyleDiffusionRun:
    """A checked edit by StyleDiffusion."""

    request: StyleDiffusionRequest
    config: StyleDiffusionConfig
    cells: tuple[EditCell, ...]
    """The request's own edit, then further ones: other targets, other taus."""
    version: int = METHOD_VERSION
    parts: tuple[str, ...] = ("vae", "unet", "clip")

    @property
    def stages(self) -> Sequence[StagePlan]:
        depends = {
            "source_prompt": self.request.source_prompt,
            "config": self.config.inversion.model_dump(mode="json"),
        }
        return (StagePlan(INVERSION, depends),)

    @property
    def depends(self) -> Mapping[str, Any]:
        return {"edits": [cell.depends for cell in self.cells]}

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        del stage, read  # there is one stage
        tokenizer = bench.model_set.tokenizer
        steps = invert(
            bench.square,
            tokenizer.encode(self.request.source_prompt),
            tokenizer.encode(""),
            _client(bench),
            self.config.inversion,
            seed=self.request.seed,
            checkpoint=None if checkpoint is None else InversionState.from_tensors(checkpoint),
        )
        inversion = yield from framed(steps, partial(_in_original, bench))
        return {_FILE: pack_tensors(inversion.to_tensors(), inversion.metadata())}

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        inversion = unpack_inversion(read(INVERSION))
        steps = edit_cells(inversion, self.cells, _client(bench))
        outputs = yield from framed(steps, partial(_in_original, bench))
        pictures = {"reconstruction": outputs[0].reconstruction}
        files: dict[str, bytes] = {}
        for number, output in enumerate(outputs):
            suffix = f"_{number}" if number else ""
            if number:
                pictures[f"edited{suffix}"] = self._restored(bench, number, output)
            if output.attention is not None:
                pictures[f"attention{suffix}"] = output.attention[None]
            if output.mask is not None:
                pictures[f"mask{suffix}"] = output.mask[None]
        if len(outputs) > 1:
            files["edits.json"] = self._listed(outputs)
        return Outputs(
            edited=self._restored(bench, 0, outputs[0]),
            pictures=pictures,
            figures=outputs[0].figures,
            files=files,
        )

    def _listed(self, outputs: Sequence[EditOutput]) -> bytes:
        """Which picture is which edit, with its figures."""
        edits = [
            {
                "picture": f"edited_{number}.png" if number else "edited.png",
                **cell.facts,
                "figures": output.figures,
            }
            for number, (cell, output) in enumerate(zip(self.cells, outputs, strict=True))
        ]
        return json.dumps(edits, indent=1).encode()

    def _restored(
        self, bench: Workbench, number: int, output: EditOutput
    ) -> Float[Tensor, "3 height width"]:
        """An edited square back in the original.

        Where the blend kept the source, the original's own pixels stay; a soft border of a
        latent's width hides what the autoencoder alone changes there. A generated source has no
        pixels but the autoencoder's.
        """
        mask = output.mask
        pastes = self.cells[number].config.paste_back and not self.request.is_generated
        if mask is not None and pastes:
            spec = bench.model_set.spec
            border = spec.image_size // spec.latent_size // 2
            mask = feather(dilate(mask, border), border)[None]
            return restore(output.image, bench.original, bench.placement, mask)
        return restore(output.image, bench.original, bench.placement)


def plan_style_diffusion(request: StyleDiffusionRequest, model_set: ModelSet) -> StyleDiffusionRun:
    """A request checked against the method and the model set.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    defaults = model_set.style_diffusion
    cells = plan_cells(model_set.tokenizer, request, defaults)
    return StyleDiffusionRun(request, configure(request, defaults), cells)


def unpack_inversion(files: Files) -> Inversion:
    """The inversion among the files of its stage."""
    tensors, about = unpack_tensors(files[_FILE])
    return Inversion.from_tensors(tensors, about)


def _in_original(
    bench: Workbench, square: Float[Tensor, "3 size size"]
) -> Float[Tensor, "3 height width"]:
    """A square as it will lie in the original."""
    return restore(square, bench.original, bench.placement)


def _client(bench: Workbench) -> DiffusionClient:
    return DiffusionClient(bench.executor, bench.model_set.spec, alone=bench.request.deterministic)
