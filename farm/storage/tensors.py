"""Tensors as bytes and back: safetensors only, since a pickle from a store could run code."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Shaped
from safetensors import SafetensorError
from torch import Tensor

from farm.errors import CorruptArtifactError

AnyTensor: TypeAlias = Shaped[Tensor, "..."]
AnyArray: TypeAlias = Shaped[np.ndarray, "..."]

_LENGTH_BYTES = 8  # the format: little-endian length of the header, the header as JSON, the data


def pack_tensors(
    tensors: Mapping[str, AnyTensor | AnyArray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A safetensors file with these tensors and metadata.

    Equal input gives equal bytes, so digests of artifacts can be compared. Tensors come from any
    device, with any strides, and may share memory; each is written on its own.
    """
    copies = {name: _on_its_own(tensor) for name, tensor in tensors.items()}
    return _with_metadata(safetensors.torch.save(copies), dict(metadata or {}))


def unpack_tensors(data: bytes) -> tuple[dict[str, AnyTensor], dict[str, str]]:
    """Tensors (on the CPU, writable) and metadata of a safetensors file.

    Raises:
        CorruptArtifactError: it is none, or is cut short.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CorruptArtifactError(
            f"{len(data)} bytes are no safetensors file ({error}): compute the artifact again"
        ) from error
    header, _ = _split(data)
    return tensors, dict(header.get("__metadata__", {}))


def _on_its_own(tensor: AnyTensor | AnyArray) -> AnyTensor:
    if isinstance(tensor, np.ndarray):
        native = tensor.astype(tensor.dtype.newbyteorder("="), order="C", copy=True)
        return torch.from_numpy(native)
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return json.loads(data[_LENGTH_BYTES:end]), data[end:]


def _with_metadata(data: bytes, metadata: dict[str, str]) -> bytes:
    """The library writes metadata in the order of a hash table; we write it sorted."""
    if not metadata:
        return data
    header, body = _split(data)
    text = json.dumps({"__metadata__": metadata, **header}, ensure_ascii=False, sort_keys=True)
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % _LENGTH_BYTES)  # keeps the data aligned
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded + body
