"""The source as it is sampled under guidance, on its own."""

from collections.abc import Generator, Iterator
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient, NoiseQuery
from farm.methods.style_diffusion.conditions import Conditions, conditions_of, plain_conditions
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.progress import Progress
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide


def sample_source(
    state: InversionState, conditions: Conditions, client: DiffusionClient, config: InversionConfig
) -> Iterator[InversionState]:
    """The state after each of the source's remaining moves: two forwards a timestep.

    The far side remembers where the source looks, for the edits to come.
    """
    moves = NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)
    while state.index < config.num_steps:
        index, latents = state.index, state.latents
        move = moves[index]
        uncond = client.noise(NoiseQuery(latents, move.timestep, conditions.uncond[index]))
        (source,) = client.source_noises(
            [
                NoiseQuery(
                    latents,
                    move.timestep,
                    conditions.source[index],
                    conditions.source_values[index],
                )
            ]
        )
        noise = guide(uncond, source.noise, config.guidance_scale)
        latents = ddim_step(latents, noise, move.alpha, move.alpha_to)
        state = state.moved(latents, source.maps)
        yield state


def sample_plain(
    state: InversionState, client: DiffusionClient, config: InversionConfig, stage: str
) -> Generator[Progress, None, InversionState]:
    """Sample the source with nothing learned: plain DDIM, and generated pictures."""
    first = 0 if config.generated else config.num_steps
    for after in sample_source(state, plain_conditions(state, config), client, config):
        state = after
        step = first + state.index
        yield Progress(stage, step, config.total_progress, checkpoint=state)
    return state


def retrace(inversion: Inversion, client: DiffusionClient) -> Inversion:
    """The inversion with its source sampled anew from the noisiest latents, with what it learned.

    For networks that come from elsewhere, or were rounded: where the source goes with them is what
    their edits must start from.
    """
    state = inversion.state
    state = replace(state, chain=state.trajectory[-1:], token_maps=state.token_maps[:0])
    for after in sample_source(state, conditions_of(inversion), client, inversion.config):
        state = after
    return replace(inversion, state=state)


def reconstruct(
    inversion: Inversion,
    client: DiffusionClient,
    values: Float[Tensor, "steps tokens embed"] | None = None,
) -> Float[Tensor, "channels height width"]:
    """Guided sampling of the source prompt from the inversion's noise; decode it to see it.

    Without `values` the text feeds the values too: plain DDIM at the same guidance, the baseline
    that inversion is measured against. With `learned_values` of the source prompt it is the
    method's own reconstruction.
    """
    state, config = inversion.state, inversion.config
    latents = state.trajectory[-1]
    for index, move in enumerate(NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)):
        value_embeds = None if values is None else values[index]
        uncond, cond = client.noises(
            [
                NoiseQuery(latents, move.timestep, state.uncond_embeds),
                NoiseQuery(latents, move.timestep, state.source_embeds, value_embeds),
            ]
        )
        noise = guide(uncond, cond, config.guidance_scale)
        latents = ddim_step(latents, noise, move.alpha, move.alpha_to)
    return latents
