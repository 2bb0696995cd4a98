"""Random numbers of training, each step's from its key alone (spec §3.3, §4)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from farm.methods.edit_infinity.config import NoiseConfig
from farm.methods.edit_infinity.needs import Layout, Model
from farm.training import keyed_generator


@dataclass(frozen=True)
class StepNoise:
    """What chance decides about one training step.

    Attributes:
        flips: bits that the history has wrong, packed.
        branch_scale: 1 / (1 - p) for paths that are taken, 0 for those dropped.
        dropped: whether the text is left out.
        dropout_seed: of the adapters' dropout.
    """

    flips: UInt8[Tensor, " bytes"]
    branch_scale: Float[Tensor, "blocks 2"]
    dropped: bool
    dropout_seed: int


def step_noise(
    model: Model, layout: Layout, config: NoiseConfig, key: tuple[str | int, ...]
) -> StepNoise:
    """Noise of the step that `key` names; the same on every machine."""
    generator = keyed_generator(*key)
    # every number is drawn whatever the configuration, so that one switch shifts no other's
    seed = int(torch.randint(2**62, (), generator=generator))
    dropped = torch.rand((), generator=generator).item() < config.condition_dropout
    paths = torch.rand(model.depth, 2, generator=generator)
    # the rate of dropped paths grows along the blocks from 0
    rates = torch.linspace(0, config.drop_path, model.depth)[:, None]
    return StepNoise(
        flips=_flips(model, layout, config.flip_strength, generator),
        branch_scale=(paths >= rates) / (1 - rates),
        dropped=dropped,
        dropout_seed=seed,
    )


def _flips(
    model: Model, layout: Layout, strength: float, generator: torch.Generator
) -> UInt8[Tensor, " bytes"]:
    """Each scale's bits flip with a probability drawn from 0, 0.01, … strength."""
    most = round(strength * 100)
    pieces: list[Tensor] = []
    for height, width in layout.latent_grids:
        rate = torch.randint(most + 1, (), generator=generator).item() / 100
        count = height * width * model.latent_channels
        pieces.append(torch.rand(count, generator=generator) < rate)
    return torch.from_numpy(np.packbits(torch.cat(pieces).numpy()))
