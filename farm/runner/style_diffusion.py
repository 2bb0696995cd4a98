"""StyleDiffusion as the runner sees it: one stage, the inversion, and the edit."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient
from farm.images import restore
from farm.masks import dilate, feather
from farm.methods.style_diffusion import METHOD_VERSION
from farm.methods.style_diffusion.config import StyleDiffusionConfig
from farm.methods.style_diffusion.editing import edit
from farm.methods.style_diffusion.inversion import invert
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.plan import EditPlan, plan_prompts
from farm.progress import Progress
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
    plan: EditPlan
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
        return {
            "target_prompt": self.request.target_prompt,
            "target_word": self.request.target_word,
            "config": self.config.editing.model_dump(mode="json"),
        }

    def make(
        self,
        stage: str,
        bench: Workbench,
        read: ReadStage,
        checkpoint: Mapping[str, Tensor] | None,
    ) -> Steps:
        del stage, read  # there is one stage
        tokenizer = bench.model_set.tokenizer
        inversion = yield from invert(
            bench.square,
            tokenizer.encode(self.request.source_prompt),
            tokenizer.encode(""),
            _client(bench),
            self.config.inversion,
            seed=self.request.seed,
            checkpoint=None if checkpoint is None else InversionState.from_tensors(checkpoint),
        )
        return {_FILE: pack_tensors(inversion.to_tensors(), inversion.metadata())}

    def edit(self, bench: Workbench, read: ReadStage) -> Generator[Progress, None, Outputs]:
        inversion = unpack_inversion(read(INVERSION))
        output = yield from edit(inversion, self.plan, _client(bench), self.config.editing)
        pictures = {
            "reconstruction": output.reconstruction,
            "attention": output.attention[None],
        }
        if output.mask is not None:
            pictures["mask"] = output.mask[None]
        return Outputs(
            edited=self._restored(bench, output.image, output.mask),
            pictures=pictures,
            figures=output.figures,
        )

    def _restored(
        self,
        bench: Workbench,
        edited: Float[Tensor, "3 size size"],
        mask: Float[Tensor, "size size"] | None,
    ) -> Float[Tensor, "3 height width"]:
        """The edited square back in the original.

        Where the blend kept the source, the original's own pixels stay; a soft border of a
        latent's width hides what the autoencoder alone changes there.
        """
        if mask is not None and self.config.editing.paste_back:
            spec = bench.model_set.spec
            border = spec.image_size // spec.latent_size // 2
            mask = feather(dilate(mask, border), border)[None]
            return restore(edited, bench.original, bench.placement, mask)
        return restore(edited, bench.original, bench.placement)


def plan_style_diffusion(request: StyleDiffusionRequest, model_set: ModelSet) -> StyleDiffusionRun:
    """A request checked against the method and the model set.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    config = model_set.style_diffusion.with_parameters(request.parameters)
    plan = plan_prompts(
        model_set.tokenizer,
        request.source_prompt,
        request.target_prompt,
        config.editing,
        config.inversion.num_steps,
        request.target_word,
    )
    return StyleDiffusionRun(request, config, plan)


def unpack_inversion(files: Files) -> Inversion:
    """The inversion among the files of its stage."""
    tensors, about = unpack_tensors(files[_FILE])
    return Inversion.from_tensors(tensors, about)


def _client(bench: Workbench) -> DiffusionClient:
    return DiffusionClient(bench.executor, bench.model_set.spec, alone=bench.request.deterministic)
