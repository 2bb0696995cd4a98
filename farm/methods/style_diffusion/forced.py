"""All mapping networks at once, along the inversion's own trajectory (spec §10.C).

A timestep of the chain waits for the last because it starts where that one led. Along the
trajectory of DDIM inversion every start is known before, so one round of calls trains all
timesteps. The source must then keep to that trajectory while editing: it is pinned there.
"""

from collections.abc import Generator
from dataclasses import replace

import torch

from farm.diffusion import DiffusionClient, NoiseQuery, ValueQuery
from farm.methods.style_diffusion.chain import (
    STAGE,
    checked_loss,
    loss_detail,
    value_embeds,
    value_query,
)
from farm.methods.style_diffusion.conditions import conditions_of
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.mapping_network import (
    MappingNetwork,
    build_mapping_network,
    initialise,
    leave_values,
    state_of,
)
from farm.progress import Progress
from farm.samplers.ddim import NoiseSchedule
from farm.training import keyed_generator


def train_forced(
    state: InversionState, client: DiffusionClient, config: InversionConfig, seed: int
) -> Generator[Progress, None, InversionState]:
    """Train the networks of all timesteps side by side, from one common start.

    That start gives every text its own values (D9): there is no chain along which learned values
    could be handed on, and few steps for each.
    """
    networks = [_start(client, config, seed) for _ in range(config.num_steps)]
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=config.learning_rate_at(index))
        for index, network in enumerate(networks)
    ]
    queries = _queries(state, client, config)
    losses = [0.0] * config.num_steps
    executed = [0] * config.num_steps
    active = list(range(config.num_steps))
    for inner in range(config.forced_steps):
        leaves = torch.stack([value_embeds(networks[n], state) for n in active])
        values = client.value_losses([queries[n] for n in active], leaves)
        torch.stack([v.loss for v in values]).sum().backward()
        for index, value in zip(active, values, strict=True):
            losses[index] = checked_loss(value.loss, index, inner, config)
            executed[index] += 1
            optimizers[index].step()
            optimizers[index].zero_grad()
        worst = max(range(len(active)), key=lambda n: losses[active[n]])
        detail = loss_detail(active[worst], inner, values[worst])
        step = config.num_steps + inner + 1
        yield Progress(STAGE, step, config.total_progress, losses[active[worst]], detail)
        active = [n for n in active if losses[n] >= config.stop_below(n)]
        if not active:
            break
    trained = replace(
        state,
        networks=tuple(state_of(network) for network in networks),
        losses=tuple(losses),
        executed=tuple(executed),
    )
    step = config.num_steps + config.rounds
    yield Progress(STAGE, step, config.total_progress, checkpoint=trained)
    return trained


def pin_source(
    state: InversionState, client: DiffusionClient, config: InversionConfig
) -> Generator[Progress, None, InversionState]:
    """Let the source go back exactly as it came; where it looks on the way is found at once."""
    conditions = conditions_of(Inversion("", config, state))
    chain = state.trajectory.flip(0)
    timesteps = NoiseSchedule.from_spec(client.spec).timesteps(config.num_steps)
    sources = client.source_noises(
        [
            NoiseQuery(latents, timestep, embeds, values)
            for latents, timestep, embeds, values in zip(
                chain, timesteps, conditions.source, conditions.source_values, strict=False
            )
        ]
    )
    maps = torch.stack([source.maps for source in sources])
    pinned = replace(state, chain=chain, token_maps=maps)
    yield Progress(STAGE, config.total_progress, config.total_progress, checkpoint=pinned)
    return pinned


def _start(client: DiffusionClient, config: InversionConfig, seed: int) -> MappingNetwork:
    network = build_mapping_network(client.spec, config)
    initialise(network, keyed_generator(seed, STAGE, 0))
    if config.value_form == "modulated":
        leave_values(network)  # D9
    return network


def _queries(
    state: InversionState, client: DiffusionClient, config: InversionConfig
) -> list[ValueQuery]:
    """Every timestep's training, at the latents that inversion had there."""
    latents = state.trajectory.flip(0)[:-1]
    timesteps = NoiseSchedule.from_spec(client.spec).timesteps(config.num_steps)
    uncond = client.noises(
        [
            NoiseQuery(at, timestep, state.uncond_embeds)
            for at, timestep in zip(latents, timesteps, strict=True)
        ]
    )
    return [
        value_query(state, index, at, noise, client, config)
        for index, (at, noise) in enumerate(zip(latents, uncond, strict=True))
    ]
