"""Transformer and autoencoder from checkpoint files, in the memory of the files themselves."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from farm.backbones.infinity.bsq_vae import RELEASED_GROUPS, BsqVae, BsqVaeConfig
from farm.backbones.infinity.checkpoint_files import read_metadata, read_state
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.state_keys import (
    check_state,
    infinity_config,
    transformer_state,
    vae_config,
    vae_state,
)
from farm.backbones.infinity.transformer import Infinity
from farm.errors import ModelSetError

GROUPS = "norm_groups"
"""Metadata of an autoencoder's file where its normalisation is not the released one."""

MATRIX = re.compile(r"^blocks\.\d+\.(sa|ca|ffn)\.(mat_qkv|mat_q|mat_kv|proj|fc1|fc2)\.")
"""What may be computed in less than single precision (spec §2.5)."""
_UNREGULARISED = "infinity_vae_d32.pth"
_M = TypeVar("_M", bound=nn.Module)


class PairingWarning(UserWarning):
    """Transformer and autoencoder cannot belong together."""


def load_transformer(
    path: Path, *, device: str = "cpu", dtype: torch.dtype | None = torch.float32
) -> Infinity:
    """A frozen transformer from any of the released layouts.

    Args:
        path: of the file, or of the folder with shards.
        device: where to compute.
        dtype: of the blocks' matrices, None: the file's; everything else is single precision.

    Raises:
        ModelSetError: the file is missing or broken, or is another model's; names the tensors.
    """
    state = transformer_state(read_state(path), str(path))
    config = infinity_config(state, str(path))
    with torch.device("meta"):
        model = Infinity(config)

    def dtype_of(name: str) -> torch.dtype:
        if not MATRIX.match(name):
            return torch.float32
        return state[name].dtype if dtype is None else dtype

    return _filled(model, state, str(path), dtype_of, device)


def load_vae(path: Path, *, device: str = "cpu") -> BsqVae:
    """A frozen autoencoder, in single precision.

    Raises:
        ModelSetError: the file is missing or broken, or is another model's; names the tensors.
    """
    state = vae_state(read_state(path), str(path))
    groups = int(read_metadata(path).get(GROUPS, RELEASED_GROUPS))
    config = vae_config(state, str(path), groups)
    with torch.device("meta"):
        model = BsqVae(config)
    return _filled(model, state, str(path), lambda _: torch.float32, device)


def patchified(transformer: InfinityConfig, vae: BsqVaeConfig) -> bool:
    """Whether the transformer's tokens stand for 2 x 2 cells of the autoencoder.

    Raises:
        ModelSetError: tokens and cells do not fit together either way.
    """
    if transformer.token_bits == vae.bits:
        return False
    if transformer.token_bits == 4 * vae.bits:
        return True
    raise ModelSetError(
        f"the transformer has {transformer.token_bits} bits a token, the autoencoder {vae.bits} a "
        f"cell; expected {transformer.token_bits} or {transformer.token_bits / 4:g}: take the "
        "autoencoder that the transformer was trained with"
    )


def warn_of_pairing(transformer: InfinityConfig, vae: BsqVaeConfig, vae_path: Path) -> None:
    """Warn where the two cannot be the pair that was trained together (spec §1).

    Released pairs have sixteen pixels a token, and the 2B was trained with the regularised
    autoencoder, which shapes alone do not tell from the other.
    """
    reasons: list[str] = []
    fits = transformer.token_bits in (vae.bits, 4 * vae.bits)
    if not fits:
        reasons.append(f"{transformer.token_bits} bits a token and {vae.bits} a cell do not fit")
    cell = 2 if transformer.token_bits == 4 * vae.bits else 1
    released = transformer.text_width == 2048
    if fits and released and cell * vae.stride != 16:
        reasons.append(f"a token would be {cell * vae.stride} pixels wide, in released models 16")
    if released and vae_path.name == _UNREGULARISED and transformer.token_bits == 32:
        reasons.append("the 2B model was trained with infinity_vae_d32reg.pth")
    if reasons:
        warnings.warn(
            f"{vae_path}: this autoencoder cannot be the transformer's: {'; '.join(reasons)}",
            PairingWarning,
            stacklevel=2,
        )


def _filled(
    model: _M,
    state: Mapping[str, Shaped[Tensor, "..."]],
    source: str,
    dtype_of: Callable[[str], torch.dtype],
    device: str,
) -> _M:
    """The file's own memory becomes the model's wherever precision and device allow."""
    check_state(state, model.state_dict(), source)
    placed = {name: tensor.to(device, dtype_of(name)) for name, tensor in state.items()}
    model.load_state_dict(placed, assign=True)
    return model.requires_grad_(False).eval()
