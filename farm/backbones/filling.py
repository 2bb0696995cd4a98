"""Networks made without memory of their own, then given that of the weights' files.

Modules are built on torch's meta device, where a full-size UNet takes a moment and no bytes. The
mapped tensors of a safetensors file then become its parameters: on a CPU nothing is copied where
the precision is the file's, so processes of one machine share the pages; on an accelerator each
tensor crosses once.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from farm.errors import ModelSetError

M = TypeVar("M", bound=nn.Module)
State = Mapping[str, Shaped[Tensor, "..."]]
DtypeOf = Callable[[str], torch.dtype]
"""Precision of a parameter by its name."""


def on_meta(build: Callable[[], M]) -> M:
    """A module whose parameters have shapes and no memory."""
    with torch.device("meta"):
        return build()


def fill(model: M, state: State, source: str, dtype_of: DtypeOf, device: str = "cpu") -> M:
    """Give a module of `on_meta` its weights; frozen and in eval mode from here on.

    Args:
        model: built on the meta device.
        state: at least its tensors, under its names (`hub_names.fitted`).
        source: where they come from, for errors.
        dtype_of: precision of each.
        device: where to compute.

    Raises:
        ModelSetError: a tensor is missing or of another shape; names the first.
    """
    expected = model.state_dict()
    broken = [n for n, t in expected.items() if n not in state or state[n].shape != t.shape]
    if broken:
        first = broken[0]
        raise ModelSetError(
            f"{source} lacks or misshapes {len(broken)} weights, the first is {first}: found "
            f"{_shape(state.get(first))}, expected {_shape(expected[first])}; its config.json "
            "belongs to another network, or the file is incomplete"
        )
    placed: dict[tuple[int, torch.dtype], Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name in expected:
        tensor = state[name]
        dtype = dtype_of(name) if tensor.is_floating_point() else tensor.dtype
        key = (id(tensor), dtype)  # tied weights stay one
        if key not in placed:
            placed[key] = tensor.to(device, dtype)
        weights[name] = placed[key]
    model.load_state_dict(weights, assign=True)
    _count_positions(model, device)
    return model.requires_grad_(False).eval()


def single(_: str) -> torch.dtype:
    """Single precision for every parameter."""
    return torch.float32


def _count_positions(model: nn.Module, device: str) -> None:
    """Buffers that no file holds: numbers of positions, which are what they say."""
    for name, buffer in list(model.named_buffers()):
        if not buffer.is_meta:
            continue
        owner, _, last = name.rpartition(".")
        if last != "position_ids":
            raise ModelSetError(f"{type(model).__name__} has a buffer {name} that no file holds")
        numbers = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
        model.get_submodule(owner).register_buffer(last, numbers, persistent=False)


def _shape(tensor: Shaped[Tensor, "..."] | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))
