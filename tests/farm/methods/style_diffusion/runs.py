"""Stages on tiny networks in this process."""

from typing import TypeVar

import torch

from farm.backbones.host import OperationHost
from farm.calls import Meter
from farm.diffusion import DiffusionClient
from farm.methods.style_diffusion.config import InversionConfig, tiny
from farm.methods.style_diffusion.inversion import invert
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.progress import Progress
from tests.stages import finish
from tests.tiny import tiny_networks, tiny_spec, tiny_tokenizer

SOURCE, TARGET = "a red cat", "a blue dog"
CONFIG = tiny().inversion

R = TypeVar("R")


def metered_client(prediction_type: str = "epsilon") -> tuple[DiffusionClient, Meter]:
    spec = tiny_spec(prediction_type)
    meter = Meter(OperationHost(tiny_networks(spec)))
    return DiffusionClient(meter, spec), meter


def picture() -> torch.Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(7))


def inverted(
    client: DiffusionClient,
    config: InversionConfig = CONFIG,
    *,
    seed: int = 0,
    checkpoint: InversionState | None = None,
    source: str = SOURCE,
) -> tuple[list[Progress], Inversion]:
    tokenizer = tiny_tokenizer()
    texts = tokenizer.encode(source), tokenizer.encode("")
    return finish(invert(picture(), *texts, client, config, seed=seed, checkpoint=checkpoint))
