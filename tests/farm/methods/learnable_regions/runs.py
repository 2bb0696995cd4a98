"""Stages on tiny networks in this process."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch

from farm.backbones.host import OperationHost
from farm.calls import Meter
from farm.methods.learnable_regions.analysed import Analysis
from farm.methods.learnable_regions.analysis import analyse
from farm.methods.learnable_regions.config import LearnableRegionsConfig, tiny
from farm.methods.learnable_regions.editing import RegionEdit, edit
from farm.methods.learnable_regions.plan import plan_prompts
from farm.methods.learnable_regions.search import search
from farm.methods.learnable_regions.searched import Search
from farm.progress import Progress
from farm.regions import RegionsClient
from tests.stages import finish
from tests.tiny import tiny_tokenizer
from tests.tiny_regions import picture, tiny_region_networks, tiny_region_spec

SOURCE, TARGET = "a red cat", "a blue dog"
CONFIG = tiny()

R = TypeVar("R")


@cache
def tiny_host() -> OperationHost:
    """Networks are frozen, so all tests may share them."""
    return OperationHost(tiny_region_networks())


def metered_client() -> tuple[RegionsClient, Meter]:
    meter = Meter(tiny_host())
    return RegionsClient(meter, tiny_region_spec()), meter


@dataclass(frozen=True)
class Whole:
    """An edit from end to end."""

    analysis: Analysis
    search: Search
    edit: RegionEdit
    reports: list[Progress]
    work: dict[str, int]


def changed(config: LearnableRegionsConfig = CONFIG, **places: object) -> LearnableRegionsConfig:
    """A configuration with fields set by their place, dots written as two underscores."""
    tree = config.model_dump()
    for place, value in places.items():
        *folders, name = place.split("__")
        part = tree
        for folder in folders:
            part = part[folder]
        part[name] = value
    return LearnableRegionsConfig.model_validate(tree)


def whole(
    config: LearnableRegionsConfig = CONFIG,
    *,
    image: torch.Tensor | None = None,
    seed: int = 0,
    start: Mapping[str, torch.Tensor] | None = None,
    target: str = TARGET,
) -> Whole:
    client, meter = metered_client()
    image = picture() if image is None else image
    prompts = plan_prompts(tiny_tokenizer(), SOURCE, target, config)
    one, analysis = finish(analyse(image, prompts, client, config.analysis, seed=seed))
    two, found = finish(search(image, analysis, prompts, client, config, seed=seed, start=start))
    three, output = finish(edit(image, analysis, found, client, config, seed=seed))
    return Whole(analysis, found, output, one + two + three, dict(meter.work))


@cache
def plain():
    """The edit that most others are compared with."""
    return whole()
