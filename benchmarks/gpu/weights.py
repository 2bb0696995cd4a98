"""Folders of random weights at full size, in the very formats in which the real ones are published.

    python -m benchmarks.gpu.weights sd15 out/random/sd15 --variant fp16
    python -m benchmarks.gpu.weights sd15+infinity-2b out/random/both

What is slow or large about a checkpoint does not depend on its numbers. Names are those of the
published files: an older spelling of the autoencoder's attention, prefixed towers, position ids,
tied tables stored once, blocks in chunks, buffers of zeros, training state beside the weights.
"""

import argparse
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from farm.backbones.filling import on_meta
from farm.backbones.infinity.convert import convert_checkpoint
from farm.backbones.infinity.schedules import Size
from farm.zoo.architectures import ARCHITECTURES, Architecture
from farm.zoo.checking import released_parts
from farm.zoo.infinity_sets import state_infinity
from farm.zoo.model_sets import write_manifest
from farm.zoo.recipes.t5 import word_tokenizer
from farm.zoo.released_sets import recipes_of, spec_for

Variant = Literal["full", "fp16"]
State = dict[str, torch.Tensor]

_SPREAD = 0.02
_SHARD_BYTES = 5_000_000_000
WORDS = ("a", "the", "red", "blue", "cat", "dog", "ball", "and", "on", "grass")
"""That the sets' tokenizers know."""
_DIFFUSERS = ("unet", "inpainting", "vae")
_BSQ_EXTRA = 32
"""Values of the training state that is written beside an autoencoder's weights."""


def random_state(architecture: Architecture, dtype: torch.dtype, device: str = "cpu") -> State:
    """Weights of a network at its own size: small numbers, norms of one."""
    generator = torch.Generator(device).manual_seed(0)
    state: State = {}
    for name, like in on_meta(architecture.make).state_dict().items():
        tensor = torch.empty(like.shape, dtype=dtype, device=device)
        tensor.normal_(0, _SPREAD, generator=generator)
        if "norm" in name and name.endswith("weight"):
            tensor.fill_(1)
        state[name] = tensor.cpu()
    return state


def released_names(part: str, state: State) -> State:
    """The same under the names in published files."""
    if part == "vae":
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        return {
            re.sub(r"\.(to_q|to_k|to_v|to_out\.0)\.", lambda m: f".{old[m[1]]}.", name): tensor
            for name, tensor in state.items()
        }
    if part == "text_encoder":
        named = {f"text_model.{name}": tensor for name, tensor in state.items()}
        return named | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    if part == "safety_checker":
        return {
            f"vision_model.{n}" if n.startswith("vision_model.") else n: t for n, t in state.items()
        }
    if part == "t5":
        kept = {n: t for n, t in state.items() if n != "encoder.embed_tokens.weight"}
        width = state["shared.weight"].shape[1]
        return kept | {"decoder.final_layer_norm.weight": torch.ones(width)}
    return state


def released_infinity(state: State, chunks: int) -> State:
    """An Infinity's state dict as it was trained: blocks in chunks, zeros for the keys' biases."""
    depth = 1 + max(int(m[1]) for m in map(re.compile(r"blocks\.(\d+)\.").match, state) if m)
    per_chunk = depth // chunks
    named: State = {}
    for name, tensor in state.items():
        match = re.match(r"blocks\.(\d+)\.(.+)", name)
        if match:
            number = int(match[1])
            name = f"block_chunks.{number // per_chunk}.module.{number % per_chunk}.{match[2]}"
        named[name] = tensor
        if name.endswith(".v_bias") and ".sa." not in name:
            named[name.replace(".v_bias", ".zero_k_bias")] = torch.zeros_like(tensor)
    return named


def write_network(
    part: str, architecture: Architecture, folder: Path, variant: Variant, device: str = "cpu"
) -> None:
    """A folder in the hub's layout; T5 in shards, as it is published, or as `pull` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    half = torch.bfloat16 if part == "t5" else torch.float16
    state = random_state(architecture, half if variant == "fp16" else torch.float32, device)
    state = released_names(part, state)
    text = json.dumps(dict(architecture.config), indent=1, default=list)
    (folder / "config.json").write_text(text, encoding="utf-8")
    stem = "diffusion_pytorch_model" if part in _DIFFUSERS else "model"
    if part == "t5" and variant == "full":
        write_shards(state, folder, stem, _SHARD_BYTES)
        return
    middle = ".fp16" if variant == "fp16" and part not in ("dino", "t5") else ""
    save_file(state, folder / f"{stem}{middle}.safetensors", metadata={"format": "pt"})


def write_shards(state: State, folder: Path, stem: str, shard_bytes: int) -> None:
    """Safetensors in several files with an index."""
    shards = list(_shards(state, shard_bytes))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({n: state[n] for n in names}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    size = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _shards(state: State, shard_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    room = shard_bytes
    for name, tensor in state.items():
        if names and tensor.nbytes > room:
            yield names
            names, room = [], shard_bytes
        names.append(name)
        room -= tensor.nbytes
    yield names


def write_pickles(
    transformer: Architecture,
    vae: Architecture,
    folder: Path,
    chunks: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Path, Path]:
    """An Infinity's two files: a plain state dict, and weights beside training state."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "infinity.pth", folder / "infinity_vae.pth"
    torch.save(released_infinity(random_state(transformer, dtype, device), chunks), files[0])
    more = {f"discriminator.{n}": torch.zeros(1) for n in range(_BSQ_EXTRA)}
    state = random_state(vae, torch.float32, device)
    torch.save({"vae": state, "optimizer": more, "step": 1}, files[1])
    return files


def write_set(
    name: str,
    folder: Path,
    variant: Variant = "full",
    *,
    device: str = "cpu",
    architectures: Mapping[str, Architecture] = ARCHITECTURES,
    spec_changes: Mapping[str, Any] | None = None,
    defaults: str = "paper",
    size: Size | None = None,
) -> None:
    """A whole model set of random weights, by the name of a released one.

    Args:
        name: of the set.
        folder: where to.
        variant: of the weights.
        device: where numbers are drawn.
        architectures: of the networks, by name; others for small ones.
        spec_changes: what is different about small ones.
        defaults: of the methods.
        size: of the Infinity's pictures; None: the released one's.
    """
    parts = released_parts(name)
    for part, network in parts.items():
        if part not in ("infinity", "bsq_vae"):
            write_network(part, architectures[network], folder / part, variant, device)
    about = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    write_tokenizer(folder / "tokenizer", int(about["vocab_size"]))
    if "infinity" in parts:
        chunks = 4 if parts["infinity"] == "infinity-125m" else 8
        networks = [architectures[parts[part]] for part in ("infinity", "bsq_vae")]
        depth = len(on_meta(networks[0].make).blocks)
        pickles = folder / "released"
        for file in write_pickles(
            networks[0], networks[1], pickles, min(chunks, depth), device, torch.bfloat16
        ):
            convert_checkpoint(file, folder, "bf16", named=True)
        shutil.rmtree(pickles)
        word_tokenizer(WORDS).save(str(folder / "t5" / "tokenizer.json"))
    spec = spec_for(name, folder).model_copy(update=dict(spec_changes or {}))
    about = {"licence": "none", "source": "random numbers, for measurements alone"}
    later = {} if "infinity" in parts else None  # an Infinity's statement takes all digests anew
    write_manifest(folder, spec, defaults=defaults, digests=later, **about)
    for recipe in recipes_of(name):
        if recipe.infinity is not None:
            state_infinity(folder, size or recipe.size)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """One token a word, start and end at the ids that CLIP's have: the last two."""
    start, end, unknown = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"
    ids = {word: number for number, word in enumerate((unknown, *WORDS))}
    ids |= {start: vocabulary - 2, end: vocabulary - 1}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=unknown))
    tokenizer.add_special_tokens([AddedToken(start), AddedToken(end)])
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def main() -> None:
    """Write one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=["full", "fp16"], default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    write_set(given.name, given.folder, given.variant, device=given.device)


if __name__ == "__main__":
    main()
