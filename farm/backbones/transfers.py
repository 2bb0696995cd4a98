"""Between the host's arrays and the device's tensors, with as few waits as there can be."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Tensors = Mapping[str, Shaped[Tensor, "..."]]

_streams: dict[str, torch.cuda.Stream] = {}
"""A stream of its own for what goes in, by device: copies run beside what is computed."""


def to_device(arrays: Arrays, device: str) -> dict[str, Tensor]:
    """Arrays as tensors of a device; floating ones in single precision.

    On CUDA they go through pinned memory on a stream of their own, and the stream that computes
    waits for it, not the caller.
    """
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors = {name: tensor.to(dtype_of(tensor.dtype)) for name, tensor in tensors.items()}
    if torch.device(device).type != "cuda":
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    stream = _streams.setdefault(device, torch.cuda.Stream(device))
    computing = torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        sent = {n: t.pin_memory().to(device, non_blocking=True) for n, t in tensors.items()}
    computing.wait_stream(stream)
    for tensor in sent.values():
        tensor.record_stream(computing)
    return sent


def to_host(tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors as arrays; one wait for all of them.

    Tensors in half precision come back in single precision, which arrays can hold.
    """
    ready = {
        name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        for name, tensor in tensors.items()
    }
    found: dict[str, Tensor] = {}
    for name, tensor in ready.items():
        if tensor.is_cuda:
            room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            found[name] = room.copy_(tensor, non_blocking=True)
        else:
            found[name] = tensor
    devices = {tensor.device for tensor in ready.values() if tensor.is_cuda}
    for device in devices:
        torch.cuda.current_stream(device).synchronize()
    return {name: tensor.numpy() for name, tensor in found.items()}


def dtype_of(dtype: torch.dtype) -> torch.dtype:
    """The precision in which an array of a call is handed to its operation."""
    return torch.float32 if dtype.is_floating_point else dtype
