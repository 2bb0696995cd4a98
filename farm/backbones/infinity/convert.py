"""Released checkpoints to safetensors in half the bytes, once; memory-mapped ever after.

What is computed in half precision is stored so: the matrices of a transformer's blocks, nearly all
of its numbers. The rest of it, and an autoencoder, whose bits near zero would flip, stay as they
are.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor

from farm.backbones.infinity.bsq_vae import RELEASED_GROUPS, BsqVae
from farm.backbones.infinity.checkpoint_files import read_metadata, read_state
from farm.backbones.infinity.loading import GROUPS, MATRIX
from farm.backbones.infinity.state_keys import (
    check_state,
    infinity_config,
    is_transformer,
    is_vae,
    transformer_state,
    vae_config,
    vae_state,
)
from farm.backbones.infinity.transformer import Infinity
from farm.errors import InvalidRequestError, ModelSetError

Precision = Literal["bf16", "fp16", "fp32"]
Kind = Literal["infinity", "bsq_vae"]
AnyTensor = Shaped[Tensor, "..."]

PRECISIONS: Mapping[str, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
_NAME = "model"
_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        kind: which network it is.
        files: written, in order; the index last where there are shards.
        numbers: parameters in them.
        bytes: of all files.
    """

    kind: Kind
    files: tuple[Path, ...]
    numbers: int
    bytes: int


def convert_checkpoint(
    source: Path,
    folder: Path,
    precision: Precision = "bf16",
    *,
    named: bool = False,
    shard_bytes: int = _SHARD_BYTES,
) -> Converted:
    """Write a released checkpoint as safetensors under our names.

    Everything is checked before anything is written; what no forward pass reads is left out.

    Args:
        source: a file or a folder with shards, as released.
        folder: where to write; made if missing, and must hold no safetensors yet.
        precision: of what may be computed in less than single precision.
        named: write into a folder of the network's kind in it, as model sets have them.
        shard_bytes: most bytes of one file.

    Raises:
        ModelSetError: the source is no checkpoint that we know.
        InvalidRequestError: the precision is unknown, or something is in the folder already.
    """
    if precision not in PRECISIONS:
        raise InvalidRequestError(
            f"found the precision {precision!r}, expected one of {', '.join(PRECISIONS)}"
        )
    metadata = read_metadata(source)
    groups = int(metadata.get(GROUPS, RELEASED_GROUPS))
    kind, state = _checked(read_state(source), str(source), groups)
    folder = folder / kind if named else folder
    if any(folder.glob("*.safetensors")):
        raise InvalidRequestError(f"{folder} holds safetensors already: name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    dtype = PRECISIONS[precision]
    dtypes = {
        name: dtype if kind == "infinity" and MATRIX.match(name) else torch.float32
        for name in state
    }
    files = _Writer(folder, dtypes, shard_bytes, metadata).write(state)
    return Converted(
        kind=kind,
        files=files,
        numbers=sum(tensor.numel() for tensor in state.values()),
        bytes=sum(path.stat().st_size for path in files),
    )


def _checked(
    state: Mapping[str, AnyTensor], source: str, groups: int
) -> tuple[Kind, dict[str, AnyTensor]]:
    if is_transformer(state):
        renamed = transformer_state(state, source)
        with torch.device("meta"):
            expected = Infinity(infinity_config(renamed, source)).state_dict()
        check_state(renamed, expected, source)
        return "infinity", renamed
    if is_vae(state):
        renamed = vae_state(state, source)
        with torch.device("meta"):
            expected = BsqVae(vae_config(renamed, source, groups)).state_dict()
        check_state(renamed, expected, source)
        return "bsq_vae", renamed
    raise ModelSetError(
        f"{source} is neither an Infinity transformer nor a BSQ autoencoder: its first tensors are "
        f"{', '.join(sorted(state)[:4])}"
    )


@dataclass(frozen=True)
class _Writer:
    folder: Path
    dtypes: Mapping[str, torch.dtype]
    shard_bytes: int
    metadata: Mapping[str, str]

    def write(self, state: Mapping[str, AnyTensor]) -> tuple[Path, ...]:
        shards = list(self._shards(state))
        if len(shards) == 1:
            return (self._save(state, shards[0], f"{_NAME}.safetensors"),)
        paths: list[Path] = []
        places: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            name = f"{_NAME}-{number:05d}-of-{len(shards):05d}.safetensors"
            paths.append(self._save(state, names, name))
            places |= dict.fromkeys(names, name)
        index = self.folder / f"{_NAME}.safetensors.index.json"
        size = sum(self._bytes(name, tensor) for name, tensor in state.items())
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": places}, indent=1)
        index.write_text(text + "\n", encoding="utf-8")
        return (*paths, index)

    def _shards(self, state: Mapping[str, AnyTensor]) -> Iterator[list[str]]:
        """Names of the tensors of each file."""
        names: list[str] = []
        room = self.shard_bytes
        for name, tensor in state.items():
            size = self._bytes(name, tensor)
            if names and size > room:
                yield names
                names, room = [], self.shard_bytes
            names.append(name)
            room -= size
        yield names

    def _bytes(self, name: str, tensor: AnyTensor) -> int:
        return tensor.numel() * self.dtypes[name].itemsize

    def _save(self, state: Mapping[str, AnyTensor], names: list[str], name: str) -> Path:
        tensors = {n: state[n].to(self.dtypes[n], copy=True).contiguous() for n in names}
        path = self.folder / name
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={**self.metadata, "format": "pt"})
        partial.replace(path)
        return path
