"""Stage 1: an image and its prompt to a trajectory and trained mapping networks (spec §§2, 6).

Depends on the image, the source prompt, the seed, the weights and `InversionConfig`; on no target.
"""

from collections.abc import Generator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient, NoiseQuery, ValueQuery
from farm.errors import EditDivergedError
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.mapping_network import (
    MappingNetwork,
    build_mapping_network,
    initialise,
    state_of,
    value_input,
)
from farm.methods.style_diffusion.words import Tokens
from farm.progress import Progress
from farm.samplers.ddim import Move, NoiseSchedule, ddim_invert, ddim_step
from farm.samplers.guidance import guide
from farm.training import keyed_generator

STAGE = "style_diffusion.inversion"


def invert(
    image: Float[Tensor, "3 height width"],
    source: Tokens,
    uncond: Tokens,
    client: DiffusionClient,
    config: InversionConfig,
    *,
    seed: int,
    checkpoint: InversionState | None = None,
) -> Generator[Progress, None, Inversion]:
    """Train the mapping networks of one image.

    Costs T forwards of DDIM, and per timestep one unconditional forward, as many forwards with
    backwards as there are optimiser steps, and one forward to move on (spec §10.A).

    Args:
        image: in [0, 1], of the model's size.
        source: the source prompt.
        uncond: the empty prompt.
        client: the frozen model.
        config: numbers of this stage.
        seed: of the first mapping network's parameters.
        checkpoint: where an interrupted run of the same arguments was; the result is the same to
            the last bit as that of a run without interruption, wherever the client's is.

    Yields:
        One `Progress` per network call; after each timestep it carries a checkpoint.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    state = checkpoint
    if state is None:
        state = yield from _start(image, source, uncond, client, config)
    while state.index < config.num_steps:
        network = build_mapping_network(client.spec, config)
        if state.index == 0:
            initialise(network, keyed_generator(seed, STAGE, state.index))
        else:
            network.load_state_dict(state.networks[-1])  # warm start: parameters alone
        state = yield from train_timestep(state, network, client, config)
    return Inversion(source.prompt, config, state)


def _start(
    image: Float[Tensor, "3 height width"],
    source: Tokens,
    uncond: Tokens,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, InversionState]:
    """Everything that does not depend on trained values: embeddings, image tokens, trajectory."""
    source_embeds = client.embed_prompt(source.ids)
    uncond_embeds = client.embed_prompt(uncond.ids)
    image_tokens = client.image_tokens(image)
    trajectory = [client.encode(image)]

    def denoiser(
        latents: Float[Tensor, "channels height width"], timestep: int
    ) -> Float[Tensor, "channels height width"]:
        query = NoiseQuery(latents, timestep, source_embeds)
        return client.noise(query, keep_maps=config.attention_weight > 0)

    moves = NoiseSchedule.from_spec(client.spec).inverting(config.num_steps)
    for latents in ddim_invert(denoiser, trajectory[0], moves):
        trajectory.append(latents)
        yield Progress(STAGE, len(trajectory) - 1, _total(config))
    return InversionState(
        trajectory=torch.stack(trajectory),
        image_tokens=image_tokens,
        source_embeds=source_embeds,
        uncond_embeds=uncond_embeds,
        latents=trajectory[-1],
    )


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
    moves = NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)
    move = moves[index]
    noise_uncond = client.noise(NoiseQuery(state.latents, move.timestep, state.uncond_embeds))
    query = _value_query(state, move, moves, noise_uncond, config)
    losses: list[float] = []
    for progress in _optimise(network, state, query, client, config):
        assert progress.loss is not None
        losses.append(progress.loss)
        yield progress
    latents = _advance(network, state, query, client)
    after = replace(
        state,
        latents=latents,
        networks=(*state.networks, state_of(network)),
        losses=(*state.losses, losses[-1]),
        executed=(*state.executed, len(losses)),
    )
    step = config.num_steps + sum(config.budget(n) + 1 for n in range(index + 1))
    yield Progress(STAGE, step, _total(config), checkpoint=after)
    return after


def _value_query(
    state: InversionState,
    move: Move,
    moves: list[Move],
    noise_uncond: Float[Tensor, "channels height width"],
    config: InversionConfig,
) -> ValueQuery:
    index, levels = state.index, config.num_steps
    # The target maps are those that DDIM inversion saw at the latents it left this timestep with,
    # so they belong to the neighbouring, noisier timestep; the first has no such neighbour and
    # takes the inversion's last (spec §0.4).
    map_level = min(levels - index, levels - 1)
    return ValueQuery(
        latents=state.latents,
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


def _optimise(
    network: MappingNetwork,
    state: InversionState,
    query: ValueQuery,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, None]:
    """Adam on one network until its budget is spent or its loss, before a step, was low enough."""
    index = state.index
    before = config.num_steps + sum(config.budget(n) + 1 for n in range(index))
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate_at(index))
    for inner in range(config.budget(index)):
        optimizer.zero_grad()
        value = client.value_loss(query, _value_embeds(network, state))
        loss = value.loss.item()
        if not value.loss.isfinite():
            raise EditDivergedError(
                f"the loss is {loss} at timestep {index}, step {inner}: try a learning_rate "
                f"below {config.learning_rate:g} or another seed"
            )
        value.loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()
        detail = {
            "timestep_index": index,
            "inner_step": inner,
            "latent_loss": value.latent_loss,
            "attention_loss": value.attention_loss,
        }
        yield Progress(STAGE, before + inner + 1, _total(config), loss, detail)
        if loss < config.stop_below(index):
            return


def _advance(
    network: MappingNetwork, state: InversionState, query: ValueQuery, client: DiffusionClient
) -> Float[Tensor, "channels height width"]:
    """The guided move with the trained network; the unconditional noise is still good (D3)."""
    with torch.no_grad():
        values = _value_embeds(network, state)
    cond = client.noise(NoiseQuery(query.latents, query.timestep, query.embeds, values))
    noise = guide(query.noise_uncond, cond, query.guidance_scale)
    return ddim_step(query.latents, noise, query.alpha, query.alpha_prev)


def _value_embeds(network: MappingNetwork, state: InversionState) -> Float[Tensor, "tokens embed"]:
    return value_input(network(state.image_tokens[None])[0], state.source_embeds)


def _total(config: InversionConfig) -> int:
    """Network calls that can be waited for: DDIM, optimiser steps, moves."""
    return 2 * config.num_steps + config.total_budget
