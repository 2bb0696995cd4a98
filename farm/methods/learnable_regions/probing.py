"""How well the inpainting model predicts the noise on whole pictures, under several prompts."""

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.learnable_regions.config import ProbeConfig
from farm.methods.learnable_regions.needs import RegionBackbones
from farm.progress import Progress
from farm.regions import InpaintQuery
from farm.samplers.ddim import NoiseSchedule
from farm.training import keyed_generator

_NOISE = "learnable_regions.probe"
_GREY = 0.5
_TOGETHER = 16
"""Questions that are asked at once; between two lots whoever watches hears that it goes on."""

Embeds = Float[Tensor, "tokens embed"]


def noise_errors(
    pictures: Sequence[Float[Tensor, "3 size size"]],
    prompts: Sequence[Embeds],
    client: RegionBackbones,
    config: ProbeConfig,
    *,
    seed: int,
    stage: str,
) -> Generator[
    Progress, None, Float[Tensor, "pictures prompts levels noises channels latent latent"]
]:
    """Predicted minus true noise of pictures that were noised, without guidance.

    The model is told that all of the picture is a hole, which is one of the masks it was trained
    with: it sees the noised picture and the words alone. Noise depends on level and number, so that
    pictures and prompts are compared under common noise. One forward each.

    Args:
        pictures: at the model's size, in [0, 1].
        prompts: embeddings in the inpainting model.
        client: the frozen networks.
        config: levels, and noises of each.
        seed: of the noise.
        stage: whose steps these are.

    Yields:
        One `Progress` a lot of questions.
    """
    *latents, left = client.encode([*pictures, torch.full_like(pictures[0], _GREY)])
    alphas = NoiseSchedule.from_spec(client.spec).alphas_cumprod
    levels = [round(level * (len(alphas) - 1)) for level in config.levels]
    cases = [(level, number) for level in levels for number in range(config.noises)]
    noises = [
        torch.randn(client.spec.latent_shape, generator=keyed_generator(seed, _NOISE, *case))
        for case in cases
    ]
    everything = torch.ones(1, *left.shape[1:])
    queries = [
        InpaintQuery(
            latents=alphas[level].sqrt() * clean + (1 - alphas[level]).sqrt() * noise,
            timestep=level,
            alpha=float(alphas[level]),
            alpha_prev=1.0,  # the step ends at the clean picture, which tells the noise
            embeds=embeds,
            uncond_embeds=embeds,
            guidance_scale=1.0,
            mask=everything,
            left=left,
        )
        for clean in latents
        for embeds in prompts
        for (level, _), noise in zip(cases, noises, strict=True)
    ]
    shape = (len(latents), len(prompts), len(levels), config.noises)
    answers: list[Float[Tensor, "channels latent latent"]] = []
    for start in range(0, len(queries), _TOGETHER):
        answers += client.inpaint(queries[start : start + _TOGETHER])
        yield Progress(stage, len(answers), len(queries))
    believed = torch.stack(answers).unflatten(0, shape)
    true = torch.stack(latents).view(len(latents), 1, 1, 1, *left.shape)
    # noise = (noisy - sqrt(a) clean) / sqrt(1 - a), so errors of both differ by a factor alone
    signal = alphas[levels].view(-1, 1, 1, 1, 1)
    return (signal / (1 - signal)).sqrt() * (true - believed)
