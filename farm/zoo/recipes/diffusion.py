"""What both UNets of the zoo share: captions, the v-loss with grounding, and guided sampling."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPModel

from farm.backbones.stable_diffusion import Autoencoder
from farm.zoo.recipes.clip import WIDTH, scenes_tokenizer, token_batch
from farm.zoo.recipes.grounding import MapRecorder, TokenTags, grounding_loss
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.scenes import Scenes

_DROP = 0.1
_CHUNK = 64  # pictures sampled together


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


@dataclass(frozen=True)
class LatentBatch:
    """What one training step of a UNet looks at."""

    latents: Float[Tensor, "batch 4 height width"]
    masks: Float[Tensor, "batch slots height width"]
    """Coverage of each latent cell by each object."""
    ids: Int[Tensor, "batch tokens"]
    tags: Int[Tensor, "batch tokens"]
    """Which object each token speaks of, see `TokenTags`."""
    condition: Float[Tensor, "batch 5 height width"] | None = None
    """Channels that follow the noisy latents: the hole, and the latents of what is left."""


class LatentDiffusion:
    """The frozen networks around a UNet, its loss and its sampler.

    Args:
        networks: where the finished autoencoder and CLIP are.
        grounding: weight of the grounding loss; 0 trains without any mask.
    """

    def __init__(self, networks: Path, *, grounding: float = 0.0) -> None:
        self.networks, self.grounding = networks, grounding
        self.text = CLIPModel.from_pretrained(networks / "clip").text_model.float().eval()
        self.text.requires_grad_(False)
        self.recorder = MapRecorder()
        self.tokenizer = scenes_tokenizer()
        self.tags = TokenTags(self.tokenizer)
        self.alphas = alphas_cumprod()
        self.empty = token_batch(self.tokenizer, [""])

    def autoencoder(self) -> Autoencoder:
        return load_autoencoder(self.networks)

    def captions(
        self, scenes: Scenes, rows: Int[Tensor, " batch"], generator: torch.Generator
    ) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
        """Token ids and tags of varied captions, a tenth of them dropped."""
        words = random.Random(int(torch.randint(2**31, (1,), generator=generator)))  # noqa: S311
        said = [varied_caption(scenes, i, words) for i in rows.tolist()]
        ids = token_batch(self.tokenizer, [text for text, _ in said])
        tags = self.tags(ids, [order for _, order in said])
        dropped = torch.rand(len(rows), generator=generator) < _DROP
        ids[dropped] = self.empty
        tags[dropped] = -1
        return ids, tags

    def loss(
        self, module: nn.Module, batch: LatentBatch, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Unweighted squared error of the velocity, and the grounding loss where it has weight."""
        latents = batch.latents
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(1000, (len(latents),), generator=generator)
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        if batch.condition is not None:
            noisy = torch.cat([noisy, batch.condition], 1)
        with torch.no_grad():
            embeds = self.text(batch.ids).last_hidden_state
        install(module, self.recorder)  # also for its plain products, fast on a CPU
        self.recorder.maps.clear()
        predicted = module(noisy, timesteps, embeds).sample.float()
        loss = (predicted - velocity).square().mean()
        figures = {"v_mse": loss.item()}
        if self.grounding > 0:
            weight = 1 - timesteps / 1000  # where noise hides the object there is nothing to ground
            grounded = grounding_loss(self.recorder.maps, batch.masks, batch.tags, weight)
            figures["grounding"] = grounded.item()
            loss = loss + self.grounding * grounded
        return loss, figures

    def embed_captions(self, scenes: Scenes) -> Float[Tensor, "scenes tokens embed"]:
        """Text states of the scenes' canonical captions."""
        ids = token_batch(self.tokenizer, [caption(scenes, i) for i in range(len(scenes))])
        with torch.no_grad():
            return self.text(ids).last_hidden_state

    def sample(
        self,
        module: nn.Module,
        embeds: Float[Tensor, "pictures tokens embed"],
        noise: Float[Tensor, "pictures 4 height width"],
        condition: Float[Tensor, "pictures 5 height width"] | None = None,
        *,
        steps: int = 20,
        guidance: float = 4.0,
    ) -> Float[Tensor, "pictures 4 height width"]:
        """Latents by DDIM with classifier-free guidance, in chunks of 64 pictures."""
        install(module, AttnProcessor2_0())
        with torch.no_grad():
            empty = self.text(self.empty).last_hidden_state
            chunks: list[Tensor] = []
            for start in range(0, len(noise), _CHUNK):
                rows = slice(start, start + _CHUNK)
                said = torch.cat([empty.expand_as(embeds[rows]), embeds[rows]])
                seen = None if condition is None else condition[rows].repeat(2, 1, 1, 1)
                chunks.append(_denoise(module, said, noise[rows], seen, steps, guidance))
        return torch.cat(chunks)


def load_autoencoder(networks: Path) -> Autoencoder:
    """The autoencoder of a folder of networks, in fp32."""
    return Autoencoder(AutoencoderKL.from_pretrained(networks / "vae").float())


def install(module: nn.Module, processor: MapRecorder | AttnProcessor2_0) -> None:
    """Let one processor compute all attention of a UNet, under data parallelism or not."""
    unet: Any = getattr(module, "module", module)
    unet.set_attn_processor(processor)


def _denoise(
    module: nn.Module,
    embeds: Tensor,
    latents: Tensor,
    condition: Tensor | None,
    steps: int,
    guidance: float,
) -> Tensor:
    """Both halves of `embeds` and `condition` (without and with the words) in one batch."""
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
    for timestep in scheduler.timesteps:
        both = torch.cat([latents, latents])
        if condition is not None:
            both = torch.cat([both, condition], 1)
        uncond, cond = module(both, timestep, embeds).sample.chunk(2)
        latents = scheduler.step(uncond + guidance * (cond - uncond), timestep, latents).prev_sample
    return latents
