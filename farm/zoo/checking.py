"""Whether the files of a model set hold the networks that they should, without loading them.

Tensors stay in the files: a set of thirty gigabytes is checked in seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from jaxtyping import Shaped
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
)

from farm.backbones.dino import load_dino
from farm.backbones.filling import on_meta
from farm.backbones.hub_names import fitted
from farm.backbones.infinity.loading import load_transformer, load_vae
from farm.backbones.weight_files import read_weights
from farm.errors import ModelSetError
from farm.zoo.architectures import build
from farm.zoo.model_sets import ModelSet
from farm.zoo.released_sets import is_released, recipes_of

State = Mapping[str, Shaped[Tensor, "..."]]


@dataclass(frozen=True)
class PartReport:
    """What the files of one network hold.

    Attributes:
        part: folder in the model set.
        tensors: that the network takes.
        numbers: parameters in them.
        unused: tensors in the files that it does not take.
        released: which released network it was held against; empty: its own config alone.
    """

    part: str
    tensors: int
    numbers: int
    unused: int
    released: str = ""


def check_networks(model_set: ModelSet) -> list[PartReport]:
    """Every network's keys and shapes against its config, and the released one that it stands for.

    Raises:
        ModelSetError: naming the first tensor that is missing or of another shape.
    """
    released = released_parts(model_set.spec.name) if is_released(model_set.spec.name) else {}
    reports: list[PartReport] = []
    for part in sorted({name.split("/")[0] for name in model_set.digests}):
        folder = model_set.folder / part
        if part in _OWN:
            expected = state = _OWN[part](folder)
            unused = 0
        elif part in _LIBRARY:
            if not (folder / "config.json").is_file():
                raise ModelSetError(f"{folder / 'config.json'} is missing: fetch the set again")
            network = _LIBRARY[part](folder)
            found = read_weights(folder)
            expected = network.state_dict()
            state = fitted(found, expected)
            unused = len(found) - len({id(t) for t in found.values()} & _ids(state))
        else:
            continue  # what only measures, such as the judge of the scenes
        _compare(state, expected, str(folder))
        name = released.get(part, "")
        if name:
            _compare(state, build(name).state_dict(), f"{folder} ({name})")
        numbers = sum(tensor.numel() for tensor in state.values())
        reports.append(PartReport(part, len(expected), numbers, unused, name))
    return reports


def _unet(folder: Path) -> Any:
    return _diffusers(UNet2DConditionModel, folder)


def _vae(folder: Path) -> Any:
    return _diffusers(AutoencoderKL, folder)


def _diffusers(model: Any, folder: Path) -> Any:
    config = model.load_config(folder, local_files_only=True)
    return on_meta(lambda: model.from_config(config))


def _transformers(model: Any, config: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        found = config.from_pretrained(folder, local_files_only=True)
        return on_meta(lambda: model(found))

    return make


_LIBRARY: Mapping[str, Callable[[Path], Any]] = {
    "unet": _unet,
    "inpainting": _unet,
    "vae": _vae,
    "clip": _transformers(CLIPModel, CLIPConfig),
    "scorer": _transformers(CLIPModel, CLIPConfig),
    "text_encoder": _transformers(CLIPTextModel, CLIPTextConfig),
    "image_encoder": _transformers(CLIPVisionModel, CLIPVisionConfig),
    "safety_checker": _transformers(StableDiffusionSafetyChecker, CLIPConfig),
    "t5": _transformers(T5EncoderModel, T5Config),
}
_OWN: Mapping[str, Callable[[Path], State]] = {
    "dino": lambda folder: load_dino(folder).vit.state_dict(),
    "caption_vit": lambda folder: load_dino(folder).vit.state_dict(),
    "infinity": lambda folder: load_transformer(folder, dtype=None).state_dict(),
    "bsq_vae": lambda folder: load_vae(folder).state_dict(),
}
"""Loaders that check by themselves."""


def released_parts(name: str) -> dict[str, str]:
    """Which network (of `farm.zoo.architectures`) each folder of a released set holds.

    Raises:
        ModelSetError: no such set.
    """
    found: dict[str, str] = {}
    for recipe in recipes_of(name):
        for source in recipe.sources:
            networks = dict(zip(source.about.folders, source.about.numbers, strict=True))
            for part in source.parts:
                found[part] = networks.get(part) or _WHOLE[part]
        if recipe.infinity is not None:
            found |= dict(zip(("infinity", "bsq_vae"), _infinity(recipe.infinity), strict=True))
    return found


_WHOLE = {"image_encoder": "clip-b16-vision", "scorer": "clip-b16"}


def _infinity(checkpoint: str) -> tuple[str, str]:
    bits = {"infinity-125m": "bsq-d16", "infinity-2b": "bsq-d32", "infinity-8b": "bsq-d14-f8"}
    return checkpoint, bits[checkpoint]


def _compare(state: State, expected: State, source: str) -> None:
    wrong = [n for n, t in expected.items() if n not in state or state[n].shape != t.shape]
    if wrong:
        first = wrong[0]
        found = tuple(state[first].shape) if first in state else "nothing"
        raise ModelSetError(
            f"{source} lacks or misshapes {len(wrong)} weights, the first is {first}: found "
            f"{found}, expected {tuple(expected[first].shape)}; fetch the network again"
        )


def _ids(state: State) -> set[int]:
    return {id(tensor) for tensor in state.values()}
