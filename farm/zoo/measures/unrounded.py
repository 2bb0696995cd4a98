"""The same networks before rounding: fp32 averages of a training beside what was exported."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from farm.errors import ModelSetError
from farm.zoo.recipes.parts import PARTS

_STATE = ".training.safetensors"
_AVERAGE = "average."
_INSIDE = {
    "vae": "autoencoder.",
    "dino": "teacher.",
    "caption_vit": "vit.",
    "bsq_vae": "vae.",
    "bsq_decoder": "vae.",
    "t5": "encoder.",
    "infinity": "infinity.",
}
"""Where the exported network lies inside the module that was trained."""


def write_unrounded(networks: Path, states: Path, folder: Path) -> list[str]:
    """A copy of exported networks in which every part with a training state is its fp32 average.

    Args:
        networks: what was exported, fp16.
        states: where `<part>.training.safetensors` lie.
        folder: where the copy goes.

    Returns:
        The parts that were replaced.

    Raises:
        ModelSetError: a state is not the one that its exported part comes from.
    """
    shutil.copytree(networks, folder, dirs_exist_ok=True)
    replaced: list[str] = []
    found = {p.name.removesuffix(_STATE): p for p in sorted(states.glob(f"*{_STATE}"))}
    places = {part: _place(part, folder) for part in found}
    for part, state in found.items():
        if any(other != part and place.name == part for other, place in places.items()):
            continue  # another part is installed in its place
        files = sorted(places[part].glob("*.safetensors"))
        if not files:
            continue
        for path in files:
            with safe_open(path, "pt") as exported:
                facts = exported.metadata() or {"format": "pt"}
            save_file(_averages(state, part, path), path, metadata=facts)
            _forget_precision(path.with_name("config.json"))
        replaced.append(part)
    return replaced


def _place(part: str, folder: Path) -> Path:
    """Where a part lies: under its own name, or installed under another's."""
    own = folder / part
    return own if own.is_dir() or part not in PARTS else folder / PARTS[part].folder


def _averages(state: Path, part: str, exported: Path) -> dict[str, Tensor]:
    rounded = load_file(exported)
    averages: dict[str, Tensor] = {}
    with safe_open(state, "pt") as tensors:
        names = set(tensors.keys())
        for name, value in rounded.items():
            plain = _AVERAGE + name  # a head beside the network lies in the module itself
            inside = f"{_AVERAGE}{_INSIDE.get(part, '')}{name}"
            average: Tensor = tensors.get_tensor(plain if plain in names else inside)
            if value.is_floating_point() and not average.half().equal(value):
                raise ModelSetError(
                    f"{state} is not the training that {exported} was exported from: {name} "
                    "differs; give the folder of states that belongs to these networks"
                )
            averages[name] = average
    return averages


def _forget_precision(config: Path) -> None:
    """Transformers would round to what the configuration says, whatever the file holds."""
    if config.is_file():
        fields = json.loads(config.read_text(encoding="utf-8"))
        for name in ("dtype", "torch_dtype"):
            fields.pop(name, None)
            for value in fields.values():
                if isinstance(value, dict):
                    cast(dict[str, Any], value).pop(name, None)
        config.write_text(json.dumps(fields), encoding="utf-8")
