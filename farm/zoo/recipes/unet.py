"""The text-to-image UNet: v-prediction on the frozen text tower, attention grounded on masks."""

from functools import cached_property
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn

from farm.zoo.judge import load_judge
from farm.zoo.matching import match_prompts
from farm.zoo.recipes.diffusion import LatentBatch, LatentDiffusion, build_unet, install
from farm.zoo.recipes.latents import LatentPool, latent_pool
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes


class UNetRecipe:
    """Unweighted v-loss with dropped captions, and grounding of the words' attention.

    Args:
        start_from: a UNet folder to continue from.
        networks: where the finished autoencoder, CLIP and judge are.
        seed: of the pool's scenes.
        cache: where encoded latents are kept.
        pool: training scenes that are encoded.
        two_share: share of scenes with two objects.
        grounding: weight of the grounding loss; 0 trains the ungrounded control.
        name: of the exported folder.
    """

    def __init__(
        self,
        *,
        start_from: Path | None = None,
        networks: Path = Path("out/zoo/export"),
        seed: int = 0,
        cache: Path = Path("out/zoo/cache"),
        pool: int = 30_000,
        two_share: float = 0.4,
        grounding: float = 0.05,
        name: str = "unet",
    ) -> None:
        self.name, self.start_from, self.networks = name, start_from, networks
        self.diffusion = LatentDiffusion(networks, grounding=grounding)
        self._read_pool = lambda: latent_pool(
            networks / "vae", pool, seed, cache, two_share=two_share
        )

    @cached_property
    def pool(self) -> LatentPool:
        """Encoded when first needed: sampling and evaluation do without."""
        return self._read_pool()

    def build(self) -> nn.Module:
        if self.start_from is not None:
            return UNet2DConditionModel.from_pretrained(self.start_from).float()
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            return build_unet()

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        rows = torch.randint(len(self.pool.scenes), (batch_size,), generator=generator)
        ids, tags = self.diffusion.captions(self.pool.scenes, rows, generator)
        latents, masks = self.pool.latents[rows].float(), self.pool.masks[rows].float()
        return self.diffusion.loss(module, LatentBatch(latents, masks, ids, tags), generator)

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Share of prompts that samples follow, by the judge, on held-out seeds."""
        judge = load_judge(self.networks)
        scenes = concatenate(
            [
                sample_scenes(64, generator_for("heldout", 700), split="heldout", two_share=0.0),
                sample_scenes(32, generator_for("heldout", 701), split="heldout", two_share=1.0),
            ]
        )
        return match_prompts(judge, self.sample(module, scenes, seed=702), scenes)

    def sample(
        self, module: nn.Module, scenes: Scenes, *, seed: int
    ) -> Float[Tensor, "scenes 3 64 64"]:
        """Pictures for the scenes' canonical captions."""
        noise = torch.randn(len(scenes), 4, 16, 16, generator=generator_for("heldout", seed))
        latents = self.diffusion.sample(module, self.diffusion.embed_captions(scenes), noise)
        autoencoder = self.diffusion.autoencoder()
        with torch.no_grad():
            return torch.cat([autoencoder.decode(z) for z in latents.split(64)])

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, UNet2DConditionModel)
        install(module, AttnProcessor2_0())
        module.half().save_pretrained(folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return UNet2DConditionModel.from_pretrained(folder / self.name).float().eval()
