"""The inpainting UNet: the text-to-image UNet with a hole and what is left around it as input.

Stable Diffusion's layout of nine channels: four noisy latents, one mask (1 = hole), four latents
of the picture whose hole is grey. It starts from the text-to-image UNet with zeros for the new
channels, so that its first step already knows how to draw.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn

from farm.zoo.judge import load_judge
from farm.zoo.measures.hole_scores import Inpainted, drawn_as_asked, seam_figures
from farm.zoo.measures.hole_tasks import HoleTasks, hole_tasks
from farm.zoo.recipes.diffusion import LatentBatch, LatentDiffusion, build_unet, install
from farm.zoo.recipes.holes import HolePool, hole_condition, hole_pool
from farm.zoo.recipes.remains import remains_pool
from farm.zoo.scenes.scenes import generator_for

CHANNELS = 9
_TASKS = 96


class InpaintingRecipe:
    """Unweighted v-loss of whole pictures, whose holes the caption and the surroundings explain.

    A tenth of the holes is the whole picture, so that drawing from words alone is not forgotten.
    Around others are remains of a thing that the words do not tell of (`remains.py`).

    Args:
        start_from: a UNet folder to start from, of the text-to-image or of an inpainting UNet.
        networks: where the finished autoencoder, CLIP and judge are.
        seed: of both pools' scenes and holes.
        cache: where encoded latents are kept.
        pool: training scenes that are encoded.
        holes: encoded holes a scene.
        remains: share of a batch whose holes have remains around them.
        two_share: share of scenes with two objects.
        grounding: weight of the grounding loss.
    """

    name = "inpainting"

    def __init__(
        self,
        *,
        start_from: Path | None = None,
        networks: Path = Path("out/zoo/export"),
        seed: int = 0,
        cache: Path = Path("out/zoo/cache"),
        pool: int = 20_000,
        holes: int = 3,
        remains: float = 0.4,
        two_share: float = 0.4,
        grounding: float = 0.0,
    ) -> None:
        self.start_from, self.networks, self.remains = start_from, networks, remains
        self.diffusion = LatentDiffusion(networks, grounding=grounding)
        self._read_pool = lambda: hole_pool(
            networks / "vae", pool, seed, holes, cache, two_share=two_share
        )
        self._read_edited = lambda: remains_pool(
            networks / "vae", pool, seed, cache, two_share=two_share
        )

    @cached_property
    def pool(self) -> HolePool:
        """Encoded when first needed: sampling and evaluation do without."""
        return self._read_pool()

    @cached_property
    def edited(self) -> HolePool:
        """Holes with remains around them."""
        return self._read_edited()

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            unet = build_unet(CHANNELS)
        if self.start_from is not None:
            start = UNet2DConditionModel.from_pretrained(self.start_from).float()
            unet.load_state_dict(widened(start.state_dict(), CHANNELS))
        return unet

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        number = round(batch_size * self.remains)
        batches = [self._batch(self.pool, batch_size - number, generator)]
        if number:
            batches.append(self._batch(self.edited, number, generator))
        return self.diffusion.loss(module, joined(batches), generator)

    def _batch(self, pool: HolePool, count: int, generator: torch.Generator) -> LatentBatch:
        rows = torch.randint(len(pool.scenes), (count,), generator=generator)
        which = torch.randint(pool.holes.shape[1], (count,), generator=generator)
        ids, tags = self.diffusion.captions(pool.scenes, rows, generator)
        return LatentBatch(
            pool.latents[rows].float(),
            pool.masks[rows].float(),
            ids,
            tags,
            pool.condition(rows, which),
        )

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Whether asked objects appear in the holes of held-out scenes, and the seam in dB."""
        tasks = hole_tasks(_TASKS, seed=720)
        inpainted = self.sample(module, tasks, seed=721)
        rows = drawn_as_asked(load_judge(self.networks), inpainted.drawn, tasks)
        figures = {name: sum(r[name] for r in rows) / len(rows) for name in rows[0]}
        autoencoder = self.diffusion.autoencoder()
        with torch.no_grad():
            autoencoded = autoencoder.decode(autoencoder.encode(tasks.images))
        seams = seam_figures(inpainted, autoencoded, tasks)
        return figures | {name: values.nanmean().item() for name, values in seams.items()}

    def sample(self, module: nn.Module, tasks: HoleTasks, *, seed: int) -> Inpainted:
        """Whole decoded pictures for the tasks' captions."""
        autoencoder = self.diffusion.autoencoder()
        noise = torch.randn(len(tasks), 4, 16, 16, generator=generator_for("heldout", seed))
        condition = hole_condition(autoencoder, tasks.images, tasks.holes)
        embeds = self.diffusion.embed_captions(tasks.wanted)
        latents = self.diffusion.sample(module, embeds, noise, condition)
        with torch.no_grad():
            known = torch.cat([autoencoder.encode(x) for x in tasks.images.split(64)])
            kept = torch.where(condition[:, :1] > 0.5, latents, known)
            drawn, kept = (
                torch.cat([autoencoder.decode(x) for x in z.split(64)]) for z in (latents, kept)
            )
        return Inpainted(drawn, kept)

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, UNet2DConditionModel)
        install(module, AttnProcessor2_0())
        module.half().save_pretrained(folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return UNet2DConditionModel.from_pretrained(folder / self.name).float().eval()


def joined(batches: Sequence[LatentBatch]) -> LatentBatch:
    """One batch of all, which have conditions."""
    return LatentBatch(
        **{
            field.name: torch.cat([getattr(batch, field.name) for batch in batches])
            for field in fields(LatentBatch)
        }
    )


def widened(state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """A UNet's weights with zeros for the input channels that it did not have."""
    first = state["conv_in.weight"]
    zeros = first.new_zeros(first.shape[0], channels - first.shape[1], *first.shape[2:])
    return {**state, "conv_in.weight": torch.cat([first, zeros], 1)}
