"""How many bytes a model set's networks take once they are loaded, by the headers of their files.

The files' own sizes say little of it: what is kept in half precision is computed in single where
small differences decide (see `precision`), and what is kept in single is computed in half.
"""

from pathlib import Path

import torch

from farm.backbones.infinity.checkpoint_files import numbers_in, weight_map
from farm.backbones.precision import Precision, precision_for
from farm.backbones.weight_files import weights_file
from farm.errors import ModelSetError

_UNETS = frozenset({"unet", "inpainting"})
_HALVED = frozenset({"infinity", "t5"})
"""Parts that an accelerator always computes in half precision."""
_SINGLE_BYTES = torch.float32.itemsize
_HALF_BYTES = torch.bfloat16.itemsize


def loaded_sizes(folder: Path, device: str, precision: Precision | None = None) -> dict[str, int]:
    """Bytes of each part of a model set on a device; folders without weights are no parts.

    Args:
        folder: of the model set.
        device: where it is to be computed.
        precision: of the UNets; None: what suits the device.

    Raises:
        ModelSetError: a file is broken.
        InvalidRequestError: the environment asks for a precision that there is not.
    """
    unets = (precision or precision_for(device)).unet.itemsize
    halved = _SINGLE_BYTES if torch.device(device).type == "cpu" else _HALF_BYTES
    sizes: dict[str, int] = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        each = unets if part.name in _UNETS else halved if part.name in _HALVED else _SINGLE_BYTES
        sizes[part.name] = _numbers(part) * each
    return {name: size for name, size in sizes.items() if size}


def _numbers(part: Path) -> int:
    """How many numbers a part's weights are; those of a pickle as if in single precision."""
    if any(part.glob("*.safetensors")):
        return sum(map(numbers_in, _chosen(part)))
    pickles = [path for ending in ("*.pth", "*.pt") for path in part.glob(ending)]
    return sum(path.stat().st_size for path in pickles) // _SINGLE_BYTES


def _chosen(part: Path) -> list[Path]:
    """Of variants and shards those that are loaded; all where loading will say what is wrong."""
    try:
        file = weights_file(part)
    except ModelSetError:
        return sorted(part.glob("*.safetensors"))
    if file.suffix != ".json":
        return [file]
    shards = {part / name for name in weight_map(file).values()}
    return sorted(path for path in shards if path.is_file())
