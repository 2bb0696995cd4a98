"""A pool of training scenes with their BSQ features, encoded once and kept on disk."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.loading import load_vae
from farm.zoo.recipes.pool_files import Tell, cached_tensors
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import Scenes, generator_for, sample_scenes

_CHUNK = 256
_MASK_SIDE = 16


@dataclass(frozen=True)
class FeaturePool:
    name: str
    """Of what it holds."""
    scenes: Scenes
    features: Float[Tensor, "scenes bits height width"]
    """Before quantisation, fp16: noise is repaired from these."""
    masks: Float[Tensor, "scenes slots 16 16"]
    """Coverage of the objects, fp16."""


def feature_pool(
    folder: Path, count: int, seed: int, cache: Path, *, two_share: float
) -> FeaturePool:
    """`count` training scenes with features, from `cache` if this autoencoder made them before."""
    weights = (folder / "model.safetensors").read_bytes()
    settings = f"{count}/{seed}/{two_share}"
    digest = hashlib.sha256(weights + settings.encode()).hexdigest()[:16]
    tensors = cached_tensors(
        cache / f"features-{digest}.safetensors",
        lambda tell: _encode(folder, count, seed, two_share, tell),
    )
    scenes = Scenes(**{f.name: tensors[f.name] for f in fields(Scenes)})
    return FeaturePool(digest, scenes, tensors["features"], tensors["masks"])


@torch.no_grad()
def _encode(folder: Path, count: int, seed: int, two_share: float, tell: Tell) -> dict[str, Tensor]:
    vae = load_vae(folder)
    scenes = sample_scenes(
        count, generator_for("train", seed, "features"), split="train", two_share=two_share
    )
    features: list[Tensor] = []
    masks: list[Tensor] = []
    # called from a training step that computes in half precision, which flips bits near zero
    with torch.autocast("cpu", enabled=False):
        for start in range(0, count, _CHUNK):
            tell(start, count)
            drawn = render(scenes[slice(start, start + _CHUNK)])
            features.append(vae.encode(drawn.images).half())
            masks.append(F.adaptive_avg_pool2d(drawn.masks, _MASK_SIDE).half())
        encoded = {"features": torch.cat(features), "masks": torch.cat(masks)}
    return {f.name: getattr(scenes, f.name) for f in fields(Scenes)} | encoded
