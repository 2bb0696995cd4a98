"""Weights of a network's folder as the hub lays them out: single files, shards, fp16 variants."""

from itertools import product
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from farm.backbones.infinity.checkpoint_files import read_state
from farm.errors import ModelSetError

AnyTensor = Shaped[Tensor, "..."]

_STEMS = ("model", "diffusion_pytorch_model")
_ENDINGS = (
    ".safetensors",
    ".safetensors.index.json",
    ".fp16.safetensors",
    ".safetensors.index.fp16.json",
    ".fp16.safetensors.index.json",
)
"""In the order of choice: a variant is taken where the whole precision is not there."""


def weights_file(folder: Path) -> Path:
    """The file, or the index of the shards, that holds a network's weights.

    A folder may hold more than one: Stable Diffusion's UNet has weights without averaging beside
    the others, and any of them may have a variant in half precision.

    Raises:
        ModelSetError: the folder is missing, or holds no safetensors or several of unknown names.
    """
    for ending, stem in product(_ENDINGS, _STEMS):
        path = folder / f"{stem}{ending}"
        if path.is_file():
            return path
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelSetError(
            f"{folder} holds no .safetensors file: fetch the weights again, in that format, or "
            "turn others into it with `editfarm models convert`"
        )
    if len(files) > 1:
        raise ModelSetError(
            f"{folder} holds {', '.join(file.name for file in files)}, expected one of them, or an "
            "index of shards: keep the weights that are meant"
        )
    return files[0]


def read_weights(folder: Path) -> dict[str, AnyTensor]:
    """All tensors of a network's folder by name, in the pages of the files.

    Raises:
        ModelSetError: see `weights_file`; or a file is broken.
    """
    path = weights_file(folder)
    try:
        return read_state(path)
    except ModelSetError as error:
        raise ModelSetError(f"{folder} cannot be loaded: {error.message}") from error
