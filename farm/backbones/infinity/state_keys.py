"""Names and shapes in the released state dicts (spec §1, §2.1, §3.1): ours from theirs."""

import re
from collections.abc import Mapping, Sequence

from jaxtyping import Shaped
from torch import Tensor

from farm.backbones.infinity.bsq_vae import RELEASED_GROUPS, BsqVaeConfig
from farm.backbones.infinity.config import InfinityConfig
from farm.errors import ModelSetError

State = Mapping[str, Shaped[Tensor, "..."]]

_CHUNK = re.compile(r"^block_chunks\.(\d+)\.module\.(\d+)\.(.+)$")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_WITHOUT_USE = (
    "lvl_1L",
    "attn_bias_for_masking",
    "Infinity_visible_kvlen",
    "Infinity_invisible_qlen",
)
_VAE_WITHOUT_USE = ("quantizer.lfq.mask", "quantize.lfq.mask")
_VARIANTS = {
    "ffn.fcg": "a gated feed-forward network",
    ".ada_lin.": "adaptive norms of each block's own",
    ".ca_gamma": "a layer scale of cross-attention",
    "head.0": "a head of two layers",
    "norm0_ve": "a norm before the word embedding",
    "pos_1LC": "learned absolute positions",
}
_CONVS = r"(conv_in|conv_out|conv1|conv2|nin_shortcut|downsample\.conv|upsample\.conv)"
_SHORT_CONV = re.compile(rf"\b{_CONVS}\.(weight|bias)$")
_SHORT_NORM = re.compile(r"\b(norm1|norm2|norm_out)\.(weight|bias)$")


def is_transformer(state: State) -> bool:
    """Whether a state dict is an Infinity transformer's."""
    return "pos_start" in state and "cfg_uncond" in state


def is_vae(state: State) -> bool:
    """Whether a state dict is a BSQ autoencoder's."""
    return any(name.startswith("encoder.conv_in.") for name in state)


def transformer_state(state: State, source: str) -> dict[str, Tensor]:
    """A released transformer's tensors under our names: blocks without chunks, no zeros.

    Raises:
        ModelSetError: it is none, or has a bias of the keys, which the model knows nothing of.
    """
    if not is_transformer(state):
        raise ModelSetError(
            f"{source} holds no Infinity transformer (pos_start and cfg_uncond are expected, found "
            f"{_some(sorted(state))}): name the transformer's file"
        )
    chunk = 1 + max((int(m[2]) for m in map(_CHUNK.match, state) if m), default=0)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.split(".")[-1] in _WITHOUT_USE:
            continue
        if name.endswith(".zero_k_bias"):
            if tensor.count_nonzero():
                raise ModelSetError(f"{source}: {name} is not zero: the model has no key bias")
            continue
        match = _CHUNK.match(name)
        if match:
            name = f"blocks.{int(match[1]) * chunk + int(match[2])}.{match[3]}"
        if name.endswith("sa.scale_mul_1H11"):
            tensor = tensor.reshape(1, -1, 1, 1)  # some kernels keep (1, 1, H, 1)
        renamed[name] = tensor
    return renamed


def infinity_config(state: State, source: str) -> InfinityConfig:
    """Sizes of a transformer from the shapes of `transformer_state`.

    Raises:
        ModelSetError: a tensor that says a size is missing.
    """
    blocks = {int(match[1]) for match in map(_BLOCK.match, state) if match}
    if blocks != set(range(len(blocks))) or not blocks:
        raise ModelSetError(
            f"{source}: blocks {_some(sorted(map(str, blocks)))} are there and some between are "
            "not: fetch all shards"
        )
    try:
        rows, text_width = state["cfg_uncond"].shape
        return InfinityConfig(
            width=state["pos_start"].shape[-1],
            depth=len(blocks),
            heads=state["blocks.0.sa.scale_mul_1H11"].numel(),
            hidden=state["blocks.0.ffn.fc1.bias"].shape[0],
            token_bits=state["word_embed.weight"].shape[1],
            text_width=text_width,
            text_rows=rows,
            pool_heads=state["text_proj_for_sos.ca.mat_q"].shape[1],
            levels=state["lvl_embed.weight"].shape[0],
        )
    except (KeyError, IndexError) as error:
        raise ModelSetError(
            f"{source}: {error.args[0]!r} is missing, so the model's size is unknown{_hint(state)}"
        ) from error


def vae_state(state: State, source: str) -> dict[str, Tensor]:
    """A BSQ autoencoder's tensors under the released names; shorter spellings are taken too.

    Raises:
        ModelSetError: it is none.
    """
    if not is_vae(state):
        raise ModelSetError(
            f"{source} holds no BSQ autoencoder (encoder.conv_in is expected, found "
            f"{_some(sorted(state))}): name the autoencoder's file"
        )
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _VAE_WITHOUT_USE:
            continue
        if not re.search(
            r"\.conv\.conv\.|(conv_in|conv_out|conv1|conv2|nin_shortcut)\.conv\.", name
        ):
            name = _SHORT_CONV.sub(r"\1.conv.\2", name)
        renamed[_SHORT_NORM.sub(r"\1.norm.\2", name)] = tensor
    return renamed


def vae_config(state: State, source: str, groups: int = RELEASED_GROUPS) -> BsqVaeConfig:
    """Sizes of an autoencoder from the shapes of `vae_state`.

    Raises:
        ModelSetError: a tensor that says a size is missing, or the groups do not fit.
    """
    try:
        base = state["encoder.conv_in.conv.weight"].shape[0]
        widths = [
            state[f"encoder.down.{level}.block.0.conv1.conv.weight"].shape[0]
            for level in range(_count(state, r"^encoder\.down\.(\d+)\."))
        ]
        if any(width % groups for width in (base, *widths)):
            raise ModelSetError(
                f"{source}: levels of {(base, *widths)} channels are not normalised in {groups} "
                "groups: a file of another normalisation says so in its metadata"
            )
        return BsqVaeConfig(
            bits=state["encoder.conv_out.conv.weight"].shape[0],
            base=base,
            multipliers=tuple(width // base for width in widths),
            encoder_blocks=_count(state, r"^encoder\.down\.0\.block\.(\d+)\."),
            decoder_blocks=_count(state, r"^decoder\.up\.0\.block\.(\d+)\."),
            groups=groups,
        )
    except KeyError as error:
        raise ModelSetError(
            f"{source}: {error.args[0]!r} is missing, so the autoencoder's size is unknown"
        ) from error


def check_state(found: State, expected: State, source: str) -> None:
    """Whether exactly the tensors are there that a model of these sizes has.

    Raises:
        ModelSetError: naming tensors that are missing, unexpected or misshapen.
    """
    complaints: list[str] = []
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    if missing:
        complaints.append(f"lacks {_some(missing)}")
    if unexpected:
        complaints.append(f"has {_some(unexpected)}, which the model knows nothing of")
    wrong = [
        f"{name} {tuple(found[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        complaints.append(f"has other shapes: {_some(wrong)}")
    if complaints:
        raise ModelSetError(
            f"{source} {'; '.join(complaints)}{_hint(found)}: take a released checkpoint and its "
            "whole file"
        )


def _count(state: State, pattern: str) -> int:
    numbers = [int(match[1]) for match in (re.match(pattern, name) for name in state) if match]
    return 1 + max(numbers, default=-1)


def _hint(state: State) -> str:
    """What the file seems to be instead, where that can be told."""
    for part, meaning in _VARIANTS.items():
        if any(part in name for name in state):
            return f" (it seems to be a variant with {meaning}, which no released model is)"
    return ""


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
