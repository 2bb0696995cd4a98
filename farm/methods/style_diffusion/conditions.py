"""What each branch of the sampling reads at each timestep, whatever the inversion learned."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.mapping_network import output_of, value_input

Steps = Float[Tensor, "steps tokens embed"]


@dataclass(frozen=True)
class Conditions:
    """Inputs of the frozen network by timestep.

    Attributes:
        uncond: of both rows without the prompt.
        source: of the source's keys.
        source_values: of its values.
    """

    uncond: Steps
    source: Steps
    source_values: Steps


def conditions_of(inversion: Inversion) -> Conditions:
    """What the source of an edit reads: its prompt, and whatever was learned (spec §7)."""
    state, config = inversion.state, inversion.config
    plain = plain_conditions(state, config)
    if config.learned == "null_text":
        return Conditions(state.contexts, plain.source, plain.source)
    if config.learned == "text":
        return Conditions(plain.uncond, state.contexts, state.contexts)
    return Conditions(plain.uncond, plain.source, learned_values(inversion, state.source_embeds))


def plain_conditions(state: InversionState, config: InversionConfig) -> Conditions:
    """The source prompt and the empty one, at every timestep alike."""
    uncond, source = (
        embeds.expand(config.num_steps, -1, -1)
        for embeds in (state.uncond_embeds, state.source_embeds)
    )
    return Conditions(uncond, source, source)


def learned_values(inversion: Inversion, embeds: Float[Tensor, "tokens embed"]) -> Steps:
    """The value input of every timestep for a text: learned where values are, else the text."""
    if inversion.config.learned != "values":
        return embeds.expand(inversion.config.num_steps, -1, -1)
    features = inversion.state.image_tokens
    outputs = [output_of(network, features) for network in inversion.state.networks]
    return torch.stack([value_input(output, embeds) for output in outputs])
