"""How much of a scene the autoencoder keeps."""

import torch

from farm.metrics.psnr import psnr
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations
from farm.zoo.recipes.diffusion import load_autoencoder
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes


def measure_autoencoder(bench: Bench) -> Figures:
    """PSNR in dB of decode(encode(picture)): `psnr` of all pixels, `object_psnr` of objects'."""
    autoencoder = load_autoencoder(bench.networks)
    scenes = sample_scenes(
        bench.cases, generator_for("heldout", bench.seed, "autoencoder"), split="heldout"
    )
    whole: list[torch.Tensor] = []
    objects: list[torch.Tensor] = []
    for chunk in bench.chunks("vae"):
        drawn = render(scenes[chunk])
        with torch.no_grad():
            decoded = autoencoder.decode(autoencoder.encode(drawn.images))
        whole.append(psnr(decoded, drawn.images))
        objects.append(psnr(decoded, drawn.images, drawn.masks.amax(1, keepdim=True)))
    cases = {"psnr": torch.cat(whole), "object_psnr": torch.cat(objects)}
    return by_group(cases, combinations(scenes.held_out()))
