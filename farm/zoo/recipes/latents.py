"""A pool of training scenes with their latents, encoded once and kept on disk."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from farm.backbones.stable_diffusion import Autoencoder
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
    weights = (autoencoder_folder / "diffusion_pytorch_model.safetensors").read_bytes()
    digest = hashlib.sha256(weights + f"{count}/{seed}/{two_share}".encode()).hexdigest()[:16]
    path = cache / f"latents-{digest}.safetensors"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        save_file(_encode(autoencoder_folder, count, seed, two_share), path)
    tensors = load_file(path)
    scenes = Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})
    return LatentPool(scenes, tensors["latents"], tensors["masks"])


def _encode(folder: Path, count: int, seed: int, two_share: float) -> dict[str, Tensor]:
    autoencoder = Autoencoder(AutoencoderKL.from_pretrained(folder).float())
    scenes = sample_scenes(
        count, generator_for("train", seed, "latents"), split="train", two_share=two_share
    )
    latents, masks = torch.empty(count, 4, 16, 16), torch.empty(count, 2, 16, 16)
    for start in range(0, count, _CHUNK):
        rows = slice(start, start + _CHUNK)
        drawn = render(scenes[rows])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            latents[rows] = autoencoder.encode(drawn.images).float()
        masks[rows] = torch.nn.functional.adaptive_avg_pool2d(drawn.masks, 16)
    tensors = {f.name: getattr(scenes, f.name) for f in fields(Scenes)}
    return tensors | {"latents": latents.half(), "masks": masks.half()}
