"""The text-to-image UNet: v-prediction on the frozen text tower, attention grounded on masks."""

import random
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPModel

from farm.backbones.stable_diffusion import Autoencoder
from farm.zoo.judge import load_judge
from farm.zoo.matching import match_prompts
from farm.zoo.recipes.clip import WIDTH, scenes_tokenizer, token_batch
from farm.zoo.recipes.grounding import MapRecorder, TokenTags, grounding_loss
from farm.zoo.recipes.latents import LatentPool, latent_pool
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.scenes import Scenes, concatenate, generator_for, sample_scenes

_DROP = 0.1


def build_unet(channels_in: int = 4) -> UNet2DConditionModel:
    """Three levels (16x16, 8x8, 4x4), cross-attention on each: 2.85 M parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=channels_in,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def alphas_cumprod() -> Float[Tensor, " train_steps"]:
    """Stable Diffusion's scaled-linear schedule."""
    return (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()).cumprod(0)


class UNetRecipe:
    """Unweighted v-loss with dropped captions, and grounding of the words' attention.

    Args:
        start_from: a UNet folder to continue from.
        networks: where the finished autoencoder, CLIP and judge are.
        cache: where encoded latents are kept.
        pool: training scenes that are encoded.
        two_share: share of scenes with two objects.
        grounding: weight of the grounding loss; 0 trains the ungrounded control.
    """

    name = "unet"

    def __init__(
        self,
        *,
        start_from: Path | None = None,
        networks: Path = Path("out/zoo/export"),
        cache: Path = Path("out/zoo/cache"),
        pool: int = 30_000,
        two_share: float = 0.4,
        grounding: float = 0.05,
    ) -> None:
        self.start_from, self.networks, self.grounding = start_from, networks, grounding
        self.text = CLIPModel.from_pretrained(networks / "clip").text_model.float().eval()
        self.text.requires_grad_(False)
        self._read_pool = lambda: latent_pool(networks / "vae", pool, 0, cache, two_share=two_share)
        self.recorder = MapRecorder()
        self.tokenizer = scenes_tokenizer()
        self.tags = TokenTags(self.tokenizer)
        self.alphas = alphas_cumprod()
        self.empty = token_batch(self.tokenizer, [""])

    @cached_property
    def pool(self) -> LatentPool:
        """Encoded when first needed: sampling and evaluation do without."""
        return self._read_pool()

    def build(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            unet = build_unet()
        if self.start_from is not None:
            unet = UNet2DConditionModel.from_pretrained(self.start_from).float()
        return unet

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        rows = torch.randint(len(self.pool.scenes), (batch_size,), generator=generator)
        ids, tags = self._captions(rows, generator)
        latents = self.pool.latents[rows].float()
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (batch_size,), generator=generator)
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.no_grad():
            embeds = self.text(ids).last_hidden_state
        if self.grounding > 0:
            _install(module, self.recorder)
        self.recorder.maps.clear()
        predicted = module(noisy, timesteps, embeds).sample.float()
        loss = (predicted - velocity).square().mean()
        figures = {"v_mse": loss.item()}
        if self.grounding > 0:
            weight = 1 - timesteps / 1000  # where noise hides the object there is nothing to ground
            grounded = grounding_loss(
                self.recorder.maps, self.pool.masks[rows].float(), tags, weight
            )
            figures["grounding"] = grounded.item()
            loss = loss + self.grounding * grounded
        return loss, figures

    def _captions(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Token ids and tags, a tenth of the captions dropped."""
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        said = [varied_caption(self.pool.scenes, i, words) for i in rows.tolist()]
        ids = token_batch(self.tokenizer, [text for text, _ in said])
        tags = self.tags(ids, [order for _, order in said])
        dropped = torch.rand(len(rows), generator=generator) < _DROP
        ids[dropped] = self.empty
        tags[dropped] = -1
        return ids, tags

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
        self,
        module: nn.Module,
        scenes: Scenes,
        *,
        seed: int,
        steps: int = 20,
        guidance: float = 4.0,
    ) -> Float[Tensor, "scenes 3 64 64"]:
        """Pictures for the scenes' canonical captions."""
        autoencoder = Autoencoder(AutoencoderKL.from_pretrained(self.networks / "vae").float())
        _install(module, AttnProcessor2_0())
        scheduler: Any = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        )
        scheduler.set_timesteps(steps)
        ids = token_batch(self.tokenizer, [caption(scenes, i) for i in range(len(scenes))])
        with torch.no_grad():
            embeds = self.text(torch.cat([self.empty.expand_as(ids), ids])).last_hidden_state
            latents = torch.randn(len(scenes), 4, 16, 16, generator=generator_for("heldout", seed))
            for timestep in scheduler.timesteps:
                both = module(torch.cat([latents, latents]), timestep, embeds).sample
                uncond, cond = both.chunk(2)
                guided = uncond + guidance * (cond - uncond)
                latents = scheduler.step(guided, timestep, latents).prev_sample
            return torch.cat([autoencoder.decode(z) for z in latents.split(64)])

    def export(self, module: nn.Module, folder: Path) -> None:
        assert isinstance(module, UNet2DConditionModel)
        _install(module, AttnProcessor2_0())
        module.half().save_pretrained(folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return UNet2DConditionModel.from_pretrained(folder / self.name).float().eval()


def _install(module: nn.Module, processor: MapRecorder | AttnProcessor2_0) -> None:
    unet: Any = getattr(module, "module", module)  # under data parallelism
    unet.set_attn_processor(processor)
