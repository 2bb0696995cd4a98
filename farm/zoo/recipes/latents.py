"""A pool of training scenes with their latents, encoded once and kept on disk."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from farm.backbones.stable_diffusion import Autoencoder
from farm.zoo.recipes.pool_files import Tell, cached_tensors
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes

_CHUNK = 256


@dataclass(frozen=True)
class LatentPool:
    scenes: Scenes
    latents: Float[Tensor, "scenes 4 16 16"]
    """Scaled posterior means, fp16."""
    masks: Float[Tensor, "scenes slots 16 16"]
    """Coverage per latent cell, fp16."""


def latent_pool(
    autoencoder_folder: Path, count: int, seed: int, cache: Path, *, two_share: float
) -> LatentPool:
    """`count` training scenes with latents, from `cache` if this autoencoder made them before."""
    digest = weights_digest(autoencoder_folder, f"{count}/{seed}/{two_share}")
    tensors = cached_tensors(
        cache / f"latents-{digest}.safetensors",
        lambda tell: _encode(autoencoder_folder, count, seed, two_share, tell),
    )
    scenes = Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})
    return LatentPool(scenes, tensors["latents"], tensors["masks"])


def weights_digest(autoencoder_folder: Path, settings: str) -> str:
    """Sixteen hexadecimal digits that name what this autoencoder makes with these settings."""
    weights = (autoencoder_folder / "diffusion_pytorch_model.safetensors").read_bytes()
    return hashlib.sha256(weights + settings.encode()).hexdigest()[:16]


def _encode(folder: Path, count: int, seed: int, two_share: float, tell: Tell) -> dict[str, Tensor]:
    autoencoder = Autoencoder(AutoencoderKL.from_pretrained(folder).float())
    scenes = sample_scenes(
        count, generator_for("train", seed, "latents"), split="train", two_share=two_share
    )
    latents, masks = torch.empty(count, 4, 16, 16), torch.empty(count, 2, 16, 16)
    for start in range(0, count, _CHUNK):
        tell(start, count)
        rows = slice(start, start + _CHUNK)
        drawn = render(scenes[rows])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            latents[rows] = autoencoder.encode(drawn.images).float()
        masks[rows] = torch.nn.functional.adaptive_avg_pool2d(drawn.masks, 16)
    tensors = {f.name: getattr(scenes, f.name) for f in fields(Scenes)}
    return tensors | {"latents": latents.half(), "masks": masks.half()}
