"""The autoencoder: 64x64 pictures to 16x16 latents of four channels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes

_OBJECT_WEIGHT = 3.0  # small dots and corners are what a plain mean forgets
_ABSOLUTE = 0.3
_DIVERGENCE = 3e-5


def build_autoencoder() -> AutoencoderKL:
    """A tiny `AutoencoderKL`: 0.77 M parameters, four-fold downsampling."""
    build: Any = AutoencoderKL  # its annotations say one block where it takes several
    return build(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


class _Reconstruction(nn.Module):
    """Encode, sample, decode in one forward, so that data parallelism sees one call."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        model: Any = self.autoencoder
        posterior = model.encode(images).latent_dist
        latents = posterior.mean + posterior.std * noise
        return model.decode(latents).sample, posterior.kl()


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Weighted squared and absolute error with a small Kullback-Leibler term."""

    start_from: Path | None = None
    """A folder to continue from."""
    name: str = "vae"

    def build(self) -> nn.Module:
        if self.start_from is not None:
            return _Reconstruction(AutoencoderKL.from_pretrained(self.start_from))
        with torch.random.fork_rng():
            torch.random.manual_seed(0)
            return _Reconstruction(build_autoencoder())

    def loss(
        self, module: nn.Module, step: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        del step
        drawn = render(sample_scenes(batch_size, generator, split="train", two_share=0.5))
        images = drawn.images * 2 - 1
        noise = torch.randn(batch_size, 4, 16, 16, generator=generator)
        decoded, divergence = module(images, noise)
        error = decoded.float() - images
        weight = 1 + _OBJECT_WEIGHT * drawn.masks.amax(1, keepdim=True)
        loss = (weight * (error.square() + _ABSOLUTE * error.abs())).mean()
        loss = loss + _DIVERGENCE * divergence.float().mean() / noise[0].numel()
        return loss, {"mse": error.square().mean().item()}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        images = render(sample_scenes(256, generator_for("heldout", 999), split="heldout")).images
        latents, decoded = _reconstruct(_autoencoder_in(module), images)
        error = (decoded - images).square().mean((1, 2, 3))
        return {"psnr": -10 * error.log10().mean().item(), "latent_std": latents.std().item()}

    def export(self, module: nn.Module, folder: Path) -> None:
        autoencoder = _autoencoder_in(module)
        images = render(sample_scenes(512, generator_for("train", 998), split="train")).images
        latents, _ = _reconstruct(autoencoder, images)
        autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 6))
        autoencoder.half().save_pretrained(folder / self.name)

    def load(self, folder: Path) -> nn.Module:
        return _Reconstruction(AutoencoderKL.from_pretrained(folder / self.name).float().eval())


def _autoencoder_in(module: nn.Module) -> AutoencoderKL:
    autoencoder = module.get_submodule("autoencoder")
    assert isinstance(autoencoder, AutoencoderKL)
    return autoencoder


def _reconstruct(autoencoder: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Latents (posterior mean, unscaled) and decoded pictures in [0, 1]."""
    model: Any = autoencoder
    with torch.no_grad():
        latents = torch.cat([model.encode(i * 2 - 1).latent_dist.mean for i in images.split(64)])
        decoded = torch.cat([model.decode(z).sample for z in latents.split(64)])
    return latents, (decoded / 2 + 0.5).clamp(0, 1)
