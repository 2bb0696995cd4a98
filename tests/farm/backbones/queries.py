"""Random questions to a tiny latent-diffusion model, three different ones of each kind."""

from collections.abc import Sequence

import torch
from torch import Tensor

from farm.backbones.host import OperationHost
from farm.calls import Answer, Call
from farm.diffusion import (
    ContextQuery,
    EditQuery,
    NoiseQuery,
    SourceRow,
    ValueQuery,
)
from tests.tiny import TOKENS, WIDTH

TIMESTEPS = (901, 451, 1)
ALPHAS = ((0.05, 0.12), (0.3, 0.4), (0.998, 0.9991))


class Recorder:
    """An executor that keeps the calls of a client."""

    def __init__(self, host: OperationHost) -> None:
        self.host, self.calls = host, list[Call]()

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        self.calls.extend(calls)
        return self.host.run_all(calls)


def normal(item: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(item + 17 * len(shape)))


def noise_query(item: int) -> NoiseQuery:
    latents, embeds = normal(item, 4, 8, 8), normal(item, TOKENS, WIDTH)
    return NoiseQuery(latents, TIMESTEPS[item], embeds, normal(item + 3, TOKENS, WIDTH))


def value_query(item: int, weight: float = 1.0) -> ValueQuery:
    return ValueQuery(
        latents=normal(item, 4, 8, 8),
        timestep=TIMESTEPS[item],
        embeds=normal(item, TOKENS, WIDTH),
        noise_uncond=normal(item + 10, 4, 8, 8),
        guidance_scale=7.5 - item,
        alpha=ALPHAS[item][0],
        alpha_prev=ALPHAS[item][1],
        target_latents=normal(item + 20, 4, 8, 8),
        map_latents=normal(item + 30, 4, 8, 8),
        map_timestep=TIMESTEPS[item] // 2,
        attention_weight=weight * (item + 1),
    )


def edit_query(item: int) -> EditQuery:
    generator = torch.Generator().manual_seed(item)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    return EditQuery(
        latents=normal(item, 4, 8, 8),
        timestep=TIMESTEPS[item],
        embeds=normal(item, TOKENS, WIDTH),
        uncond_embeds=normal(item + 5, TOKENS, WIDTH),
        value_embeds=normal(item + 6, TOKENS, WIDTH),
        source=source_row(item),
        mapper=uniform(TOKENS, TOKENS),
        refine_alpha=uniform(TOKENS).round(),
        equalizer=2 * uniform(TOKENS),
        cross_alpha=torch.full((TOKENS,), float(item != 1)),
        self_active=item != 2,
        uncond_self_active=item == 0,
        score_tokens=uniform(2, TOKENS).round(),
    )


def source_row(item: int) -> SourceRow:
    texts = (normal(item + n, TOKENS, WIDTH) for n in (7, 8))
    return SourceRow(normal(item + 9, 4, 8, 8), *texts)


def context_query(item: int) -> ContextQuery:
    return ContextQuery(
        latents=normal(item, 4, 8, 8),
        timestep=TIMESTEPS[item],
        other_noise=normal(item + 10, 4, 8, 8),
        weight=3.0 - 2 * item,
        alpha=ALPHAS[item][0],
        alpha_prev=ALPHAS[item][1],
        target_latents=normal(item + 20, 4, 8, 8),
    )


def image(item: int) -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(item))
