"""Simple ways to edit that are no methods of the farm, for arms to be compared with."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from farm.calls import Executor, Meter
from farm.diffusion import DiffusionClient, NoiseQuery
from farm.errors import InvalidRequestError
from farm.images import decode_image, fit_to_model, restore
from farm.requests import describe
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide
from farm.training import keyed_generator
from farm.zoo.model_sets import ModelSet
from jobs.bars import bar
from jobs.batch import EditRunner

SDEDIT = "sdedit"
BASELINES = (SDEDIT,)
"""What an arm may name as its method besides those of the farm."""


class SdEditConfig(BaseModel):
    """Numbers of SDEdit (Meng et al., arXiv:2108.01073)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strength: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the steps that is sampled anew."""
    num_steps: Annotated[int, Field(ge=1)]
    guidance_scale: Annotated[float, Field(ge=1)]
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Drawn:
    """What a baseline made of a source, and what it cost."""

    image: Float[Tensor, "3 height width"]
    seconds: float
    accelerator_seconds: float
    calls: Mapping[str, int]


@dataclass(frozen=True)
class BaselineEdit:
    """One edit by a baseline."""

    name: str
    config: SdEditConfig
    target_prompt: str
    source: bytes
    """A picture's file."""
    model_set: ModelSet


def sdedit_config(models: ModelSet, parameters: Mapping[str, Any]) -> SdEditConfig:
    """Parameters of an arm over StyleDiffusion's steps and guidance.

    Raises:
        InvalidRequestError: there is no such parameter, or one is out of range.
    """
    inversion = models.style_diffusion.inversion
    shared = {"num_steps": inversion.num_steps, "guidance_scale": inversion.guidance_scale}
    try:
        return SdEditConfig.model_validate({**shared, **parameters})
    except ValidationError as error:
        raise InvalidRequestError(f"{SDEDIT}: {describe(error)}") from error


def draw_all(
    runner: EditRunner, edits: Iterable[BaselineEdit], *, threads: int
) -> dict[str, Drawn]:
    """By name; several at once share the backbone's batches."""
    asked = list(edits)
    with ThreadPoolExecutor(threads) as pool:
        pictures = pool.map(lambda edit: draw(runner.executor(), edit), asked)
        drawn: dict[str, Drawn] = {}
        with bar("baselines", len(asked)) as show:
            for edit, picture in zip(asked, pictures, strict=True):
                drawn[edit.name] = picture
                show(len(drawn))
        return drawn


def draw(executor: Executor, edit: BaselineEdit) -> Drawn:
    """Noise the source part of the way, then sample from there under the target prompt."""
    started, meter, config = time.monotonic(), Meter(executor), edit.config
    client = DiffusionClient(meter, edit.model_set.spec)
    tokenizer = edit.model_set.tokenizer
    embeds = client.embed_prompt(tokenizer.encode(edit.target_prompt).ids)
    uncond = client.embed_prompt(tokenizer.encode("").ids)
    moves = NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)
    moves = moves[len(moves) - max(1, round(config.strength * len(moves))) :]
    source = decode_image(edit.source)
    square, placement = fit_to_model(source.image, client.spec.image_size)
    clean = client.encode(square)
    noise = torch.randn(clean.shape, generator=keyed_generator(config.seed, SDEDIT))
    latents = moves[0].alpha ** 0.5 * clean + (1 - moves[0].alpha) ** 0.5 * noise
    for move in moves:
        queries = [NoiseQuery(latents, move.timestep, text) for text in (uncond, embeds)]
        predicted = guide(*client.noises(queries), config.guidance_scale)
        latents = ddim_step(latents, predicted, move.alpha, move.alpha_to)
    image = restore(client.decode(latents), source, placement)
    return Drawn(image, time.monotonic() - started, meter.seconds, meter.work)
