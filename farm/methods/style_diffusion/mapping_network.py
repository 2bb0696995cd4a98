"""Mapping networks M_t: image tokens to the value input of cross-attention (spec §4)."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import skip_init

from farm.methods.style_diffusion.config import InversionConfig
from farm.model_spec import ModelSpec

State: TypeAlias = dict[str, Tensor]
"""Parameters of one network by name, or of several stacked along a first axis."""

_NEGATIVE_SLOPE = 0.01


class MappingNetwork(nn.Module):
    """Image tokens `E(x)` to the value input of one timestep, or to its scale and shift.

    The tokens are the channels and the features the length: each convolution (kernel 1) mixes
    tokens, and no feature meets another. Batch normalisation always uses the statistics at hand,
    while editing too (spec §0.3), so there is nothing running to keep and no mode to forget.

    Args:
        image_tokens: tokens of the image encoder.
        outputs: tokens made: the text encoder's positions once (direct), or twice (modulated).
        blocks: hidden blocks.
    """

    def __init__(self, image_tokens: int, outputs: int, blocks: int = 1) -> None:
        super().__init__()
        # skip_init: default initialisation would draw from the process-wide random state
        self.conv_start = skip_init(nn.Conv1d, image_tokens, outputs, 1)
        self.conv_block = nn.Sequential(
            *(
                nn.Sequential(
                    skip_init(nn.Conv1d, outputs, outputs, 1),
                    nn.BatchNorm1d(outputs, track_running_stats=False),
                    nn.LeakyReLU(_NEGATIVE_SLOPE),
                )
                for _ in range(blocks)
            )
        )
        self.conv_end = skip_init(nn.Conv1d, outputs, outputs, 1)

    def forward(
        self, features: Float[Tensor, "batch image_tokens embed"]
    ) -> Float[Tensor, "batch outputs embed"]:
        return self.conv_end(self.conv_block(self.conv_start(features)))


def build_mapping_network(spec: ModelSpec, config: InversionConfig) -> MappingNetwork:
    """A network of the right sizes with uninitialised convolutions."""
    parts = 2 if config.value_form == "modulated" else 1
    return MappingNetwork(spec.image_tokens, parts * spec.tokens, config.blocks)


def initialise(network: MappingNetwork, generator: torch.Generator) -> None:
    """Convolutions uniform in ±1/sqrt(fan in), as torch's own default; normalisation 1 and 0."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv1d):
                bound = 1 / math.sqrt(module.in_channels)
                for parameter in module.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.BatchNorm1d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def leave_values(network: MappingNetwork) -> None:
    """Make a modulated network begin with the text's own values: scale 1, shift 0, any image."""
    weight, bias = network.conv_end.parameters()
    with torch.no_grad():
        weight.zero_()
        bias[: len(bias) // 2] = 1
        bias[len(bias) // 2 :] = 0


def value_input(
    output: Float[Tensor, "outputs embed"], embeds: Float[Tensor, "tokens embed"]
) -> Float[Tensor, "tokens embed"]:
    """The value input of a text from a network's output: `embeds * s + b`, or the output itself.

    Modulated outputs hold s in their first half and b in their second (spec §0.2, §4); an output
    with as many tokens as the text is direct.
    """
    if output.shape == embeds.shape:
        return output  # D1: the paper's form; the released program's is below, and our default
    scale, shift = output.chunk(2)
    return embeds * scale + shift


def state_of(network: MappingNetwork) -> State:
    """A copy of the parameters."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def stack(states: Sequence[State]) -> State:
    """Networks as one tensor per parameter, `[timesteps, …]`."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def unstack(stacked: Mapping[str, Tensor]) -> list[State]:
    """Inverse of `stack`; nothing gives no networks."""
    count = min((len(value) for value in stacked.values()), default=0)
    return [{name: value[n] for name, value in stacked.items()} for n in range(count)]


def output_of(
    state: Mapping[str, Tensor], features: Float[Tensor, "image_tokens embed"]
) -> Float[Tensor, "outputs embed"]:
    """Output, without gradient, of the network with these parameters."""
    outputs, image_tokens, _ = state["conv_start.weight"].shape
    blocks = sum(name.startswith("conv_block.") and name.endswith(".0.weight") for name in state)
    network = MappingNetwork(image_tokens, outputs, blocks)
    network.load_state_dict(dict(state))
    with torch.no_grad():
        return network(features[None])[0]
