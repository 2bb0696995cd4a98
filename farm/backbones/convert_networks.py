"""Released DINO, CLIP and T5 in their authors' files, as folders in the hub's layout, once.

What was pickled, scripted, stored twice as precise as it is used, or mixed with what nobody uses,
becomes safetensors that are memory-mapped ever after.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, T5Config, T5EncoderModel

from farm.backbones.convert import openai_clip_state
from farm.backbones.dino import build_official_dino
from farm.backbones.filling import on_meta
from farm.backbones.hub_names import fitted
from farm.backbones.infinity.checkpoint_files import read_state
from farm.backbones.weight_files import read_weights
from farm.errors import InvalidRequestError, ModelSetError

State = Mapping[str, Shaped[Tensor, "..."]]
NetworkKind = Literal["dino", "clip", "t5"]

_DINO, _CLIP, _OPENAI = "blocks.0.attn.qkv.weight", "logit_scale", "visual.conv1.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
_KNOWN_BY: Mapping[str, NetworkKind] = {
    _T5: "t5",
    _OPENAI: "clip",
    _CLIP: "clip",
    _DINO: "dino",
}
_PREFIXES = ("module.", "backbone.")
_SCRIPT = (b"PK", "constants.pkl")
_NAME = "model.safetensors"
_HEAD_WIDTH = 64
_CLIP_WORDS = 49408


@dataclass(frozen=True)
class ConvertedNetwork:
    """What a conversion wrote.

    Attributes:
        kind: which network it is.
        folder: holds its `config.json` and its weights.
        numbers: parameters in them.
        bytes: of the weights.
    """

    kind: NetworkKind
    folder: Path
    numbers: int
    bytes: int


def network_kind(source: Path) -> NetworkKind | None:
    """Which of these networks a file or folder holds; None where it is none of them.

    Raises:
        ModelSetError: it cannot be read.
    """
    state = _read(source)
    return next((kind for name, kind in _KNOWN_BY.items() if name in state), None)


def convert_network(source: Path, folder: Path) -> ConvertedNetwork:
    """Write a released DINO, CLIP or T5 into a folder of its own.

    DINO and CLIP keep their precision; of T5 the encoder alone is kept, in bfloat16, which is what
    it is computed in.

    Args:
        source: a file (.pth, OpenAI's .pt, .bin, .safetensors), or a folder in the hub's layout.
        folder: of this network; made if missing, and must hold no weights yet.

    Raises:
        ModelSetError: the source is none of these, or incomplete.
        InvalidRequestError: something is in the folder already.
    """
    kind = network_kind(source)
    if kind is None:
        raise ModelSetError(f"{source} is no DINO, CLIP or T5: give a released file of one")
    if any(folder.glob("*.safetensors")):
        raise InvalidRequestError(f"{folder} holds safetensors already: name an empty folder")
    write = {"dino": _dino, "clip": _clip, "t5": _t5}[kind]
    config, state = write(_read(source), source)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    _write_weights(state, folder)
    numbers = sum(tensor.numel() for tensor in state.values())
    return ConvertedNetwork(kind, folder, numbers, (folder / _NAME).stat().st_size)


def unpickle_network(source: Path, folder: Path) -> None:
    """Write a network of diffusers or transformers that is pickled as safetensors.

    Names, precision and config.json stay as they are: what loads them knows them.

    Args:
        source: holds `config.json` and one pickle.
        folder: of this network; made if missing.

    Raises:
        ModelSetError: the source is not such a folder, or the pickle holds more than tensors.
    """
    pickles = sorted(source.glob("*.bin"))
    config = source / "config.json"
    if len(pickles) != 1 or not config.is_file():
        raise ModelSetError(
            f"{source} holds neither safetensors nor one pickle with its config.json: is the "
            "checkpoint in another layout?"
        )
    state = read_state(pickles[0])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(config, folder / config.name)
    _write_weights(state, folder)


def _write_weights(state: State, folder: Path) -> None:
    """Last of a network's files: a folder with weights is whole."""
    part = folder / f".{_NAME}.part"
    save_file({n: t.contiguous() for n, t in state.items()}, part, metadata={"format": "pt"})
    part.replace(folder / _NAME)


def _read(source: Path) -> dict[str, Tensor]:
    if source.is_dir():
        if any(source.glob("*.safetensors")):
            return read_weights(source)
        pickles = sorted(source.glob("*.bin"))
        return read_state(pickles[0] if pickles else source)
    if _is_scripted(source):
        return _scripted(source)
    return {_bare(name): tensor for name, tensor in read_state(source).items()}


def _bare(name: str) -> str:
    """Without what a training put before its names."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _is_scripted(source: Path) -> bool:
    """OpenAI's CLIP is published as a TorchScript archive, whose tensors a pickle cannot give."""
    if source.suffix != ".pt" or not source.is_file():
        return False
    with source.open("rb") as file:
        archive = file.read(2) == _SCRIPT[0]
        file.seek(-min(1 << 16, source.stat().st_size), 2)
        return archive and _SCRIPT[1].encode() in file.read()


def _scripted(source: Path) -> dict[str, Tensor]:
    try:
        module = torch.jit.load(str(source), map_location="cpu")
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise ModelSetError(f"{source} cannot be read ({first}): fetch it again") from error
    return {n: t.detach() for n, t in module.state_dict().items()}


def _dino(state: State, source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The authors' names are timm's; sizes are read off, the table is resized as they do."""
    kept = {name: tensor.float() for name, tensor in state.items() if not name.startswith("head.")}
    vit: Any = build_official_dino(kept, name=str(source)).vit
    arguments = {
        "img_size": int(vit.patch_embed.img_size[0]),
        "patch_size": int(vit.patch_embed.patch_size[0]),
        "embed_dim": int(vit.embed_dim),
        "depth": len(vit.blocks),
        "num_heads": int(vit.blocks[0].attn.num_heads),
    }
    config = {
        "architecture": "vit_base_patch8_224",
        "model_args": arguments,
        "pretrained_cfg": {"interpolate_offset": 0.1},
    }
    return config, kept


def _clip(state: State, source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    named = openai_clip_state(_weights(state)) if _OPENAI in state else dict(state)
    config = _clip_config(named, source)
    expected = on_meta(lambda: CLIPModel(config)).state_dict()
    found = fitted(named, expected)
    _check(found, expected, source)
    return config.to_dict(), found


def _weights(state: State) -> dict[str, Tensor]:
    """Without OpenAI's notes of sizes, which are no weights."""
    notes = ("input_resolution", "context_length", "vocab_size")
    return {name: tensor for name, tensor in state.items() if name not in notes}


def _clip_config(state: State, source: Path) -> CLIPConfig:
    """Sizes of a CLIP from its shapes; heads are 64 wide in all that OpenAI published."""
    text, vision = "text_model.", "vision_model."
    try:
        words, text_width = state[f"{text}embeddings.token_embedding.weight"].shape
        width, _, patch, _ = state[f"{vision}embeddings.patch_embedding.weight"].shape
        positions = state[f"{text}embeddings.position_embedding.weight"].shape[0]
        places = state[f"{vision}embeddings.position_embedding.weight"].shape[0]
        shared = state["visual_projection.weight"].shape[0]
        hidden = [state[f"{t}encoder.layers.0.mlp.fc1.weight"].shape[0] for t in (text, vision)]
    except KeyError as error:
        raise ModelSetError(
            f"{source} lacks {error.args[0]}: give a whole CLIP, both towers"
        ) from error
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1}
    return CLIPConfig(
        text_config={
            "vocab_size": words,
            "max_position_embeddings": positions,
            **_tower(text_width, hidden[0], _depth(state, text), shared),
            **(ends if words == _CLIP_WORDS else {}),
        },
        vision_config={
            "image_size": patch * round((places - 1) ** 0.5),
            "patch_size": patch,
            **_tower(width, hidden[1], _depth(state, vision), shared),
        },
        projection_dim=shared,
    )


def _tower(width: int, hidden: int, depth: int, shared: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": max(1, width // _HEAD_WIDTH),
        "projection_dim": shared,
    }


def _depth(state: State, tower: str) -> int:
    prefix = f"{tower}encoder.layers."
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _t5(state: State, source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not source.is_dir() or not (source / "config.json").is_file():
        raise ModelSetError(f"{source}: T5's sizes are in its config.json; give the whole folder")
    config = T5Config.from_pretrained(source, local_files_only=True)
    expected = on_meta(lambda: T5EncoderModel(config)).state_dict()
    found = fitted(state, expected)
    _check(found, expected, source)
    found.pop("encoder.embed_tokens.weight")  # the same table under its other name
    return config.to_dict(), {name: tensor.to(torch.bfloat16) for name, tensor in found.items()}


def _check(found: State, expected: State, source: Path) -> None:
    wrong = [n for n, t in expected.items() if n not in found or found[n].shape != t.shape]
    if wrong:
        raise ModelSetError(
            f"{source} lacks or misshapes {len(wrong)} weights, the first is {wrong[0]}: fetch the "
            "whole checkpoint again"
        )
