"""Stage 1: a source to its trajectory, and to what is learned for each timestep (spec §§2, 6).

Depends on the image, the source prompt, the seed, the weights and `InversionConfig`; on no target.
"""

from collections.abc import Generator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from farm.diffusion import DiffusionClient, NoiseQuery
from farm.methods.style_diffusion.chain import STAGE, train_timestep
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.contexts import train_context
from farm.methods.style_diffusion.forced import pin_source, train_forced
from farm.methods.style_diffusion.inverted import Inversion, InversionState, fresh_state
from farm.methods.style_diffusion.mapping_network import build_mapping_network, initialise
from farm.methods.style_diffusion.sampling import sample_plain
from farm.methods.style_diffusion.words import Tokens
from farm.progress import Progress
from farm.samplers.ddim import NoiseSchedule, ddim_invert
from farm.training import keyed_generator


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
    """Bring an image to noise and learn the way back; costs are in `work.planned_inversion`.

    Args:
        image: in [0, 1], of the model's size; not looked at if the source is generated.
        source: the source prompt.
        uncond: the empty prompt.
        client: the frozen model.
        config: numbers of this stage.
        seed: of the first mapping network's parameters, or of the generated picture.
        checkpoint: where an interrupted run of the same arguments was; the result is the same to
            the last bit as that of a run without interruption, wherever the client's is.

    Yields:
        One `Progress` per network call that is waited for; after the trajectory and after each
        timestep it carries a checkpoint.

    Raises:
        EditDivergedError: a loss is not finite.
    """
    state = checkpoint
    if state is None and config.generated:
        state = _drawn(source, uncond, client, config, seed)
    elif state is None:
        state = yield from _start(image, source, uncond, client, config)
    state = yield from _finish(state, client, config, seed)
    if config.generated:
        state = replace(state, trajectory=state.chain.flip(0))
    return Inversion(source.prompt, config, state)


def _finish(
    state: InversionState, client: DiffusionClient, config: InversionConfig, seed: int
) -> Generator[Progress, None, InversionState]:
    """Learn what is to be learned, and take the source to its end."""
    if config.learned == "nothing":
        return (yield from sample_plain(state, client, config, STAGE))
    if config.learned == "direct":
        return (yield from pin_source(state, client, config))
    if config.learned != "values":
        while state.index < config.num_steps:
            state = yield from train_context(state, client, config)
        return state
    if config.training != "exact" and not state.networks:
        state = yield from train_forced(state, client, config, seed)
    if config.training == "forced":
        return (yield from pin_source(state, client, config))
    while state.index < config.num_steps:
        network = build_mapping_network(client.spec, config)
        if config.training == "forced_polish":
            network.load_state_dict(state.networks[state.index])
        elif state.index == 0:
            initialise(network, keyed_generator(seed, STAGE, state.index))
        else:
            network.load_state_dict(state.networks[-1])  # warm start: parameters alone
        state = yield from train_timestep(state, network, client, config)
    return state


def _start(
    image: Float[Tensor, "3 height width"],
    source: Tokens,
    uncond: Tokens,
    client: DiffusionClient,
    config: InversionConfig,
) -> Generator[Progress, None, InversionState]:
    """Everything that does not depend on what is learned: embeddings, image tokens, trajectory."""
    source_embeds = client.embed_prompt(source.ids)
    uncond_embeds = client.embed_prompt(uncond.ids)
    learns_values = config.learned == "values"
    image_tokens = client.image_tokens(image) if learns_values else source_embeds[:0]
    trajectory = [client.encode(image)]

    def denoiser(
        latents: Float[Tensor, "channels height width"], timestep: int
    ) -> Float[Tensor, "channels height width"]:
        query = NoiseQuery(latents, timestep, source_embeds)
        return client.noise(query, keep_maps=learns_values and config.attention_weight > 0)

    moves = NoiseSchedule.from_spec(client.spec).inverting(config.num_steps)
    for latents in ddim_invert(denoiser, trajectory[0], moves):
        trajectory.append(latents)
        if len(trajectory) <= config.num_steps:
            yield Progress(STAGE, len(trajectory) - 1, config.total_progress)
    state = fresh_state(
        trajectory=torch.stack(trajectory),
        image_tokens=image_tokens,
        source_embeds=source_embeds,
        uncond_embeds=uncond_embeds,
        map_size=client.spec.map_size,
    )
    yield Progress(STAGE, config.num_steps, config.total_progress, checkpoint=state)
    return state


def _drawn(
    source: Tokens, uncond: Tokens, client: DiffusionClient, config: InversionConfig, seed: int
) -> InversionState:
    """A source that is yet to be drawn: noise, and no trajectory but that."""
    generator = keyed_generator(seed, STAGE, "noise")
    noise = torch.randn(client.spec.latent_shape, generator=generator)
    source_embeds = client.embed_prompt(source.ids)
    return fresh_state(
        trajectory=noise.expand(config.num_steps + 1, -1, -1, -1),
        image_tokens=source_embeds[:0],
        source_embeds=source_embeds,
        uncond_embeds=client.embed_prompt(uncond.ids),
        map_size=client.spec.map_size,
    )
