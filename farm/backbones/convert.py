"""Weights in others' files and names, as ours."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from farm.errors import ModelSetError

State = Mapping[str, Shaped[Tensor, "..."]]

_WRAPPED = ("teacher", "state_dict", "model")
_PREFIXES = ("module.", "backbone.")

_BLOCK = re.compile(r"(?:(visual)\.)?transformer\.resblocks\.(\d+)\.(.+)")
_BLOCK_NAMES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_PLAIN_NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}


def read_pth(path: Path) -> dict[str, Tensor]:
    """Tensors of a pickled checkpoint, read without running anything that it contains.

    A checkpoint of a whole training is unwrapped to its (teacher's) backbone.

    Raises:
        ModelSetError: the file cannot be read, or holds more than tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).split("\n", maxsplit=1)[0]
        raise ModelSetError(
            f"{path} cannot be read as a file of tensors ({first}): fetch the official weights "
            "again, or give a .safetensors file"
        ) from error
    for name in _WRAPPED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelSetError(f"{path} holds no table of tensors: give the official weights")
    return {_bare(str(name)): tensor for name, tensor in state.items()}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def openai_clip_state(state: State) -> dict[str, Tensor]:
    """Weights in the names of OpenAI's CLIP, as `transformers.CLIPModel` names them.

    Raises:
        ModelSetError: a name is none of OpenAI's.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _PLAIN_NAMES:
            found[_PLAIN_NAMES[name]] = tensor
        elif name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = tensor.T.contiguous()
        else:
            found |= _block_state(name, tensor)
    return found


def _block_state(name: str, tensor: Shaped[Tensor, "..."]) -> dict[str, Tensor]:
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise ModelSetError(f"{name!r} is no weight of OpenAI's CLIP: give a CLIP checkpoint")
    tower = "vision_model" if match[1] else "text_model"
    prefix = f"{tower}.encoder.layers.{match[2]}"
    part, _, kind = match[3].rpartition(".")
    if part in _BLOCK_NAMES:
        return {f"{prefix}.{_BLOCK_NAMES[part]}.{kind}": tensor}
    if match[3].startswith("attn.in_proj_"):
        kind = match[3].removeprefix("attn.in_proj_")
        pieces = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{prefix}.self_attn.{p}_proj.{kind}": t.contiguous() for p, t in pieces}
    raise ModelSetError(f"{name!r} is no weight of OpenAI's CLIP: give a CLIP checkpoint")
