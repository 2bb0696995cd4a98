"""Model sets of released checkpoints: which networks each takes from where, and what they are.

A name is a set of networks that edit by Stable Diffusion, and additions to it: "sd15",
"sd15+regions", "sd15+infinity-2b", "sd15+regions+infinity-2b".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from farm.backbones.infinity.schedules import Size
from farm.errors import ModelSetError
from farm.model_spec import ModelSpec, RegionSpec
from farm.zoo.checkpoints import CHECKPOINTS, Checkpoint

_DINO_SIZE = 256
"""Learnable Regions shows DINO pictures of this side (spec §1)."""
_PATCH = 8


@dataclass(frozen=True)
class Source:
    """Networks of one checkpoint in a model set.

    Attributes:
        checkpoint: name in `CHECKPOINTS`.
        parts: folder of the model set → folder in the repository.
        tokenizer: whether the set's tokenizer comes from here.
    """

    checkpoint: str
    parts: Mapping[str, str]
    tokenizer: bool = False

    @property
    def about(self) -> Checkpoint:
        return CHECKPOINTS[self.checkpoint]


@dataclass(frozen=True)
class Recipe:
    """How a model set is put together.

    Attributes:
        sources: of its folders in the hub's layout.
        text_width: of the text encoder; None for what is added to another set.
        infinity: checkpoint of its Infinity, if it adds one.
        size: of the Infinity's pictures.
    """

    sources: tuple[Source, ...]
    text_width: int | None = None
    infinity: str | None = None
    size: Size = "1M"


def _source(checkpoint: str, *, tokenizer: bool = False) -> Source:
    return Source(checkpoint, CHECKPOINTS[checkpoint].folders, tokenizer)


_IMAGE = Source("clip-b16", {"image_encoder": ""})
"""StyleDiffusion's E."""
_DINO = _source("dino-b8")
_SCORER = Source("clip-b16", {"scorer": ""})
_T5 = _source("flan-t5-xl")

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "sd14": Recipe((_source("sd14", tokenizer=True), _IMAGE), text_width=768),
        "sd15": Recipe((_source("sd15", tokenizer=True), _IMAGE), text_width=768),
        "sd2-inpainting": Recipe(
            (_source("sd2-inpainting", tokenizer=True), _DINO, _SCORER), text_width=1024
        ),
        "regions": Recipe((_source("sd15-inpainting"), _DINO, _SCORER)),
        "infinity-125m": Recipe((_T5,), infinity="infinity-125m", size="0.06M"),
        "infinity-2b": Recipe((_T5,), infinity="infinity-2b"),
        "infinity-8b": Recipe((_T5,), infinity="infinity-8b"),
    }
)
"""By name; those without `text_width` are additions."""

BASES = tuple(name for name, recipe in RECIPES.items() if recipe.text_width is not None)
ADDITIONS = tuple(name for name in RECIPES if name not in BASES)


def recipes_of(name: str) -> tuple[Recipe, ...]:
    """The recipes that make a model set, its base first.

    Raises:
        ModelSetError: no such set.
    """
    base, *more = name.split("+")
    if base not in BASES or any(n not in ADDITIONS for n in more) or len({*more}) < len(more):
        raise ModelSetError(
            f"no released model set {name!r}: expected one of {', '.join(BASES)}, with any of "
            f"{', '.join(ADDITIONS)} added by '+', as in sd15+infinity-2b"
        )
    if sum(n.startswith("infinity") for n in more) > 1:
        raise ModelSetError(f"{name!r} has more than one Infinity: name one")
    if base == "sd2-inpainting" and "regions" in more:
        raise ModelSetError(f"{name!r}: sd2-inpainting has its regions already: leave them out")
    return tuple(RECIPES[n] for n in (base, *more))


def is_released(name: str) -> bool:
    """Whether this names a set of released checkpoints."""
    return name.split("+")[0] in BASES


def checkpoints_of(name: str) -> dict[str, Checkpoint]:
    """Every checkpoint that a model set takes networks from, by name.

    Raises:
        ModelSetError: no such set.
    """
    names: dict[str, Checkpoint] = {}
    for recipe in recipes_of(name):
        for source in recipe.sources:
            names[source.checkpoint] = source.about
        if recipe.infinity is not None:
            names[recipe.infinity] = CHECKPOINTS[recipe.infinity]
    return names


def bytes_of(name: str) -> int:
    """Of all weights of a model set as published.

    Raises:
        ModelSetError: no such set.
    """
    return sum(checkpoint.bytes for checkpoint in checkpoints_of(name).values())


def spec_for(name: str, folder: Path) -> ModelSpec:
    """What a released set is, without the Infinity that may be added.

    Args:
        name: of the set.
        folder: holds `scheduler/scheduler_config.json` where it was fetched; the published values
            stand in where it was not.

    Raises:
        ModelSetError: no such set, or noise levels that the farm has not.
    """
    recipes = recipes_of(name)
    width = recipes[0].text_width
    parts = {part for recipe in recipes for source in recipe.sources for part in source.parts}
    scheduler = _scheduler(folder / "scheduler" / "scheduler_config.json")
    predicts = scheduler.get("prediction_type", "epsilon")
    regions = {"dino_size": _DINO_SIZE, "dino_patch": _PATCH, "inpainting_prediction": "epsilon"}
    return ModelSpec.model_validate(
        {
            "name": name,
            "image_size": 512,
            "latent_channels": 4,
            "latent_size": 64,
            "tokens": 77,
            "text_width": width,
            "image_tokens": 197 if width == 768 else 257,
            "map_size": 16,
            "self_replace_size": 32,
            "prediction_type": predicts,
            "num_train_timesteps": scheduler.get("num_train_timesteps", 1000),
            "beta_start": scheduler.get("beta_start", 0.00085),
            "beta_end": scheduler.get("beta_end", 0.012),
            "steps_offset": scheduler.get("steps_offset", 1),
            "text_to_image": "unet" in parts,
            "safety": "safety_checker" in parts,
            "regions": RegionSpec.model_validate(regions) if "inpainting" in parts else None,
        }
    )


def _scheduler(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelSetError(f"{path} is no JSON ({error}): fetch the model set again") from error
    expected = {"beta_schedule": "scaled_linear", "set_alpha_to_one": False}
    for name, value in expected.items():
        if found.get(name, value) != value:
            raise ModelSetError(
                f"{path}: {name} is {found[name]!r}, and the farm's noise levels are those of "
                f"{value!r}: take a checkpoint of Stable Diffusion 1 or 2"
            )
    return found
