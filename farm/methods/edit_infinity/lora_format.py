"""Adapters as one vector, and as the files that `peft` reads (spec §5.4)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from farm.errors import CorruptArtifactError
from farm.methods.edit_infinity.client import Adapters
from farm.methods.edit_infinity.config import LoraConfig
from farm.methods.edit_infinity.needs import Model

_PREFIX = "base_model.model."
_LAYERS = ("fc1", "fc2")

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

Flat = Float[Tensor, " numbers"]


@dataclass(frozen=True)
class LoraShapes:
    """Sizes of the adapters of one transformer.

    A vector holds fc1's A of all blocks, then fc1's B, fc2's A, fc2's B; A is (rank, in), B is
    (out, rank).
    """

    depth: int
    width: int
    hidden: int
    rank: int

    @classmethod
    def of(cls, model: Model, rank: int) -> "LoraShapes":
        return cls(model.depth, model.width, model.hidden, rank)

    @property
    def parts(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Shape of each stack by layer and matrix, in the vector's order."""
        return {
            ("fc1", "lora_A"): (self.depth, self.rank, self.width),
            ("fc1", "lora_B"): (self.depth, self.hidden, self.rank),
            ("fc2", "lora_A"): (self.depth, self.rank, self.hidden),
            ("fc2", "lora_B"): (self.depth, self.width, self.rank),
        }

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(a * b * c for a, b, c in self.parts.values())


def initial_adapters(shapes: LoraShapes, generator: torch.Generator) -> Flat:
    """A uniform within ±1/√in (Kaiming's with a = √5), B zero: adapters that change nothing."""
    pieces: list[Tensor] = []
    for (_, matrix), shape in shapes.parts.items():
        if matrix == "lora_A":
            bound = shape[2] ** -0.5
            pieces.append((torch.rand(shape, generator=generator) * 2 - 1) * bound)
        else:
            pieces.append(torch.zeros(shape))
    return torch.cat([piece.flatten() for piece in pieces])


def named_matrices(flat: Flat, shapes: LoraShapes) -> dict[str, Float[Tensor, "_ _"]]:
    """Matrices by module and kind, such as `blocks.0.ffn.fc1.lora_A`."""
    sizes = [a * b * c for a, b, c in shapes.parts.values()]
    named: dict[str, Tensor] = {}
    for ((layer, matrix), shape), piece in zip(
        shapes.parts.items(), flat.split(sizes), strict=True
    ):
        for block, values in enumerate(piece.unflatten(0, shape)):
            named[f"blocks.{block}.ffn.{layer}.{matrix}"] = values
    return named


def flat_adapters(named: Mapping[str, Tensor], shapes: LoraShapes) -> Flat:
    """Inverse of `named_matrices`.

    Raises:
        CorruptArtifactError: a matrix is missing or has another shape.
    """
    pieces: list[Tensor] = []
    for (layer, matrix), shape in shapes.parts.items():
        for block in range(shapes.depth):
            name = f"blocks.{block}.ffn.{layer}.{matrix}"
            found = named.get(name)
            if found is None or tuple(found.shape) != shape[1:]:
                what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
                raise CorruptArtifactError(
                    f"stored adapters: {name} {what}, expected {shape[1:]}: delete them and train "
                    "again"
                )
            pieces.append(found.flatten())
    return torch.cat(pieces)


def peft_tensors(flat: Flat, shapes: LoraShapes) -> dict[str, Tensor]:
    """Tensors of `adapter_model.safetensors` as peft names them."""
    named = named_matrices(flat, shapes)
    return {f"{_PREFIX}{name}.weight": value.contiguous() for name, value in named.items()}


def from_peft_tensors(tensors: Mapping[str, Tensor], shapes: LoraShapes) -> Flat:
    """Inverse of `peft_tensors`.

    Raises:
        CorruptArtifactError: a matrix is missing or has another shape.
    """
    named = {n.removeprefix(_PREFIX).removesuffix(".weight"): t for n, t in tensors.items()}
    return flat_adapters(named, shapes)


def peft_config(config: LoraConfig) -> str:
    """Content of `adapter_config.json`."""
    fields = {
        "peft_type": "LORA",
        "r": config.lora_r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": [f"ffn.{layer}" for layer in _LAYERS],
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "task_type": None,
        "base_model_name_or_path": None,
    }
    return json.dumps(fields, indent=1) + "\n"


def adapters_of(flat: Flat, config: LoraConfig) -> Adapters:
    """What an edit takes; dropout belongs to training alone (D11)."""
    return Adapters(flat, config.lora_r, config.lora_alpha / config.lora_r)
