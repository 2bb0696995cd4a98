"""Learned embeddings instead of values: null-text and text inversion (spec §7, baselines)."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from farm.diffusion import ContextQuery, DiffusionClient, NoiseQuery
from farm.methods.style_diffusion.chain import STAGE, checked_loss
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import InversionState
from farm.progress import Progress
from farm.samplers.ddim import Move, NoiseSchedule, ddim_step
from farm.samplers.guidance import guide

Latents = Float[Tensor, "channels height width"]


@dataclass(frozen=True)
class _Known:
    """What training at a timestep does not change: one branch's noise, maps of the source."""

    noise: Latents
    maps: Float[Tensor, "pixels tokens"] | None


def train_context(
    state: InversionState, client: DiffusionClient, config: InversionConfig
) -> Generator[Progress, None, InversionState]:
    """One timestep: learn the embeddings of one branch, then move the latents with them.

    Null-text inversion learns those of the branch without the prompt, text inversion those of the
    source prompt. Each timestep starts with what the last one learned.
    """
    index, latents = state.index, state.latents
    move = NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)[index]
    is_null = config.learned == "null_text"
    known = _known(state, move, client, is_null=is_null)
    query = ContextQuery(
        latents=latents,
        timestep=move.timestep,
        other_noise=known.noise,
        weight=1 - config.guidance_scale if is_null else config.guidance_scale,
        alpha=move.alpha,
        alpha_prev=move.alpha_to,
        target_latents=state.trajectory[config.num_steps - 1 - index],
    )
    first = state.uncond_embeds if is_null else state.source_embeds
    embeds = (state.contexts[-1] if len(state.contexts) else first).clone().requires_grad_()
    losses: list[float] = []
    for progress in _optimise(embeds, query, index, client, config):
        assert progress.loss is not None
        losses.append(progress.loss)
        yield progress
    learned = embeds.detach()
    if is_null:
        uncond = client.noise(NoiseQuery(latents, move.timestep, learned))
        noise, maps = guide(uncond, known.noise, config.guidance_scale), known.maps
    else:
        (source,) = client.source_noises([NoiseQuery(latents, move.timestep, learned)])
        noise, maps = guide(known.noise, source.noise, config.guidance_scale), source.maps
    assert maps is not None
    moved = state.moved(ddim_step(latents, noise, move.alpha, move.alpha_to), maps)
    after = replace(
        moved,
        contexts=torch.cat([state.contexts, learned[None]]),
        losses=(*state.losses, losses[-1]),
        executed=(*state.executed, len(losses)),
    )
    step = config.progress_before(index + 1)
    preview = partial(client.decode, ddim_step(latents, noise, move.alpha, 1.0))
    yield Progress(STAGE, step, config.total_progress, checkpoint=after, preview=preview)
    return after


def _known(state: InversionState, move: Move, client: DiffusionClient, *, is_null: bool) -> _Known:
    """The branch that is not trained; the source's own is remembered for the edits to come."""
    if not is_null:
        query = NoiseQuery(state.latents, move.timestep, state.uncond_embeds)
        return _Known(client.noise(query), None)
    query = NoiseQuery(state.latents, move.timestep, state.source_embeds)
    (source,) = client.source_noises([query])
    return _Known(source.noise, source.maps)


def _optimise(
    embeds: Float[Tensor, "tokens embed"],
    query: ContextQuery,
    index: int,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, None]:
    """Adam on the embeddings, changed in place; the rate and the stop are those of values."""
    before = config.progress_before(index)
    optimizer = torch.optim.Adam([embeds], lr=config.learning_rate_at(index))
    for inner in range(config.chain_budget(index)):
        optimizer.zero_grad()
        value = client.context_loss(query, embeds)
        loss = checked_loss(value, index, inner, config)
        value.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
        detail = {"timestep_index": index, "inner_step": inner, "latent_loss": loss}
        yield Progress(STAGE, before + inner + 1, config.total_progress, loss, detail)
        if loss < config.stop_below(index):
            return
