"""Reading checkpoint files: safetensors, shards with an index, and pickles of tensors alone."""

import json
import pickle
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from farm.errors import ModelSetError

AnyTensor = Shaped[Tensor, "..."]

_INDEX = "*.safetensors.index.json"
_NESTS = (
    *(("vae",), ("trainer", "gpt_fsdp"), ("gpt_fsdp",)),
    *(("teacher",), ("state_dict",), ("model",)),
)
"""Where training checkpoints keep the weights."""


def read_state(path: Path) -> dict[str, AnyTensor]:
    """All tensors of a checkpoint by name, memory-mapped.

    Args:
        path: a .safetensors file, an index of such shards, a pickle (.pth, .pt, .bin), or a folder
            with one of them or with shards.

    Raises:
        ModelSetError: nothing there, or not what it says it is.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ModelSetError(f"{path} is missing: fetch the checkpoint, or correct its path")
    if path.suffix == ".json":
        return _read_shards(path.parent, path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, or of the only one in a folder; empty for others."""
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            return {}
        path = files[0]
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise _broken(path, error) from error


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor.

    Raises:
        ModelSetError: the index says nothing of the kind.
    """
    try:
        return json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (json.JSONDecodeError, KeyError) as error:
        raise ModelSetError(f"{index} has no weight_map: fetch it again") from error


def numbers_in(path: Path) -> int:
    """How many numbers the tensors of a safetensors file are, by its header.

    Raises:
        ModelSetError: it is broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return sum(prod(file.get_slice(name).get_shape()) for name in names)
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _read_folder(folder: Path) -> dict[str, AnyTensor]:
    indices = sorted(folder.glob(_INDEX))
    if indices:
        return _read_shards(folder, indices[0])
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.pth"))
    if len(files) != 1:
        raise ModelSetError(
            f"{folder} holds {len(files)} checkpoint files and no index: name the file, or fetch "
            "the index that belongs to the shards"
        )
    return read_state(files[0])


def _read_shards(folder: Path, index: Path) -> dict[str, AnyTensor]:
    places = weight_map(index)
    missing = sorted({name for name in places.values() if not (folder / name).is_file()})
    if missing:
        raise ModelSetError(f"{folder} lacks the shards {', '.join(missing)}: fetch them")
    state: dict[str, AnyTensor] = {}
    for shard in sorted(set(places.values())):
        state |= _read_safetensors(folder / shard)
    lost = sorted(places.keys() - state.keys())
    if lost:
        raise ModelSetError(
            f"{folder}: {len(lost)} tensors of the index are in no shard, the first is {lost[0]}: "
            "fetch the shards again"
        )
    return state


def _read_safetensors(path: Path) -> dict[str, AnyTensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error


def _read_pickle(path: Path) -> dict[str, AnyTensor]:
    """A pickle of tensors and plain containers; anything that could run code is refused."""
    try:
        loaded: Any = torch.load(  # noqa: TID251 - the one place that reads released .pth files
            path,
            map_location="cpu",
            weights_only=True,
            mmap=zipfile.is_zipfile(path),  # files from before torch 1.6 cannot be mapped
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _broken(path, error) from error
    for nest in _NESTS:
        inner = loaded
        for name in nest:
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            loaded = inner
            break
    if not isinstance(loaded, Mapping):
        raise ModelSetError(
            f"{path} holds a {type(loaded).__name__}, expected a state dict: name the weights' file"
        )
    return {str(n): t for n, t in loaded.items() if isinstance(t, Tensor)}


def _broken(path: Path, error: Exception) -> ModelSetError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelSetError(
        f"{path} cannot be read ({reason:.200}): it is cut short, or no checkpoint of tensors "
        "alone; fetch it again"
    )
