"""Mapping networks one timestep after the other, each where the last has led (spec §6)."""

from collections.abc import Generator
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient, NoiseQuery, SourceNoise, ValueLoss, ValueQuery
from farm.errors import EditDivergedError
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import InversionState
from farm.methods.style_diffusion.mapping_network import MappingNetwork, state_of, value_input
from farm.progress import Progress
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide

STAGE = "style_diffusion.inversion"


def train_timestep(
    state: InversionState,
    network: MappingNetwork,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, InversionState]:
    """One timestep of the chain (spec §6): train its network, then move the latents with it.

    Args:
        state: before this timestep, which is `state.index`.
        network: where training starts; changed in place.
        client: the frozen model.
        config: numbers of this stage.

    Returns:
        The state after this timestep.
    """
    index = state.index
    timestep = NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)[index].timestep
    noise_uncond = client.noise(NoiseQuery(state.latents, timestep, state.uncond_embeds))
    query = value_query(state, index, state.latents, noise_uncond, client, config)
    losses: list[float] = []
    for progress in _optimise(network, state, query, client, config):
        assert progress.loss is not None
        losses.append(progress.loss)
        yield progress
    source = _with_network(network, state, query, client)
    # the unconditional noise of before training is still good (D3)
    noise = guide(query.noise_uncond, source.noise, query.guidance_scale)
    latents = ddim_step(query.latents, noise, query.alpha, query.alpha_prev)
    after = replace(
        state.moved(latents, source.maps),
        networks=(*state.networks[:index], state_of(network), *state.networks[index + 1 :]),
        losses=(*state.losses[:index], losses[-1], *state.losses[index + 1 :]),
        executed=(
            *state.executed[:index],
            len(losses) + (state.executed[index] if index < len(state.executed) else 0),
            *state.executed[index + 1 :],
        ),
    )
    step = config.progress_before(index + 1)
    preview = partial(client.decode, ddim_step(query.latents, noise, query.alpha, 1.0))
    yield Progress(STAGE, step, config.total_progress, checkpoint=after, preview=preview)
    return after


def value_query(
    state: InversionState,
    index: int,
    latents: Float[Tensor, "channels height width"],
    noise_uncond: Float[Tensor, "channels height width"],
    client: DiffusionClient,
    config: InversionConfig,
) -> ValueQuery:
    """What training at timestep `index` asks when the source is at `latents`."""
    levels = config.num_steps
    moves = NoiseSchedule.from_spec(client.spec).denoising(levels)
    move = moves[index]
    # The target maps are those that DDIM inversion saw at the latents it left this timestep with,
    # so they belong to the neighbouring, noisier timestep; the first has no such neighbour and
    # takes the inversion's last (spec §0.4).
    map_level = min(levels - index, levels - 1)
    return ValueQuery(
        latents=latents,
        timestep=move.timestep,
        embeds=state.source_embeds,
        noise_uncond=noise_uncond,
        guidance_scale=config.guidance_scale,
        alpha=move.alpha,
        alpha_prev=move.alpha_to,
        target_latents=state.trajectory[levels - 1 - index],
        map_latents=state.trajectory[map_level],
        map_timestep=moves[levels - 1 - map_level].timestep,
        attention_weight=config.attention_weight,
    )


def checked_loss(loss: Float[Tensor, ""], index: int, inner: int, config: InversionConfig) -> float:
    """A loss as a number.

    Raises:
        EditDivergedError: it is not finite.
    """
    if not loss.isfinite():
        raise EditDivergedError(
            f"the loss is {loss.item()} at timestep {index}, step {inner}: try a learning_rate "
            f"below {config.learning_rate:g} or another seed"
        )
    return loss.item()


def value_embeds(network: MappingNetwork, state: InversionState) -> Float[Tensor, "tokens embed"]:
    """The source's value input by a network."""
    return value_input(network(state.image_tokens[None])[0], state.source_embeds)


def loss_detail(index: int, inner: int, value: ValueLoss) -> dict[str, int | float]:
    """Figures of one optimiser step."""
    return {
        "timestep_index": index,
        "inner_step": inner,
        "latent_loss": value.latent_loss,
        "attention_loss": value.attention_loss,
    }


def _optimise(
    network: MappingNetwork,
    state: InversionState,
    query: ValueQuery,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, None]:
    """Adam on one network until its budget is spent or its loss, before a step, was low enough."""
    index = state.index
    before = config.progress_before(index)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate_at(index))
    for inner in range(config.chain_budget(index)):
        optimizer.zero_grad()
        value = client.value_loss(query, value_embeds(network, state))
        loss = checked_loss(value.loss, index, inner, config)
        value.loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
        detail = loss_detail(index, inner, value)
        yield Progress(STAGE, before + inner + 1, config.total_progress, loss, detail)
        if loss < config.stop_below(index):
            return


def _with_network(
    network: MappingNetwork, state: InversionState, query: ValueQuery, client: DiffusionClient
) -> SourceNoise:
    """The source under its trained values; the far side remembers where it looks."""
    with torch.no_grad():
        values = value_embeds(network, state)
    (source,) = client.source_noises(
        [NoiseQuery(query.latents, query.timestep, query.embeds, values)]
    )
    return source
