"""A hub in a folder: released checkpoints of small networks, in their real layouts."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

from benchmarks.gpu.small import SMALL, SMALL_REGIONS, SMALL_SPEC
from benchmarks.gpu.weights import write_network, write_pickles, write_tokenizer
from farm.zoo.architectures import Architecture
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.recipes.t5 import word_tokenizer

REVISION = "0123456789abcdef"
_VIT = {"img_size": 16, "patch_size": 2, "embed_dim": 64, "depth": 1, "num_heads": 1}
DINO = Architecture(
    lambda: VisionTransformer(**_VIT, num_classes=0),
    {"architecture": "vit_base_patch8_224", "model_args": _VIT},
)
"""Heads are 64 wide, as a conversion takes them to be."""


def write_hub(folder: Path) -> None:
    """Repositories as they lie in the hub's cache: one folder a commit."""

    def place(repository):
        return folder / repository / REVISION

    sd = place("stable-diffusion-v1-5/stable-diffusion-v1-5")
    for variant in ("full", "fp16"):
        for part, name in (
            ("unet", "sd1-unet"),
            ("vae", "sd-vae"),
            ("text_encoder", "sd1-text"),
            ("safety_checker", "sd-safety"),
        ):
            write_network(part, SMALL[name], sd / part, variant)
    write_tokenizer(sd / "tokenizer", 64)
    special = {"pad_token": "<|endoftext|>"}
    (sd / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(special))
    (sd / "scheduler").mkdir()
    (sd / "scheduler" / "scheduler_config.json").write_text(json.dumps({"steps_offset": 1}))
    inpainting = place("stable-diffusion-v1-5/stable-diffusion-inpainting") / "unet"
    write_network("inpainting", SMALL["sd1-inpainting-unet"], inpainting, "fp16")
    write_network("inpainting", SMALL["sd1-inpainting-unet"], inpainting, "full")
    pickle_weights(inpainting / "diffusion_pytorch_model.safetensors")  # as it is published
    write_network("dino", DINO, place("timm/vit_base_patch8_224.dino"), "full")
    clip = place("openai/clip-vit-base-patch16")
    write_network("clip", SMALL["clip-b16"], clip, "full")
    # as in the repositories that never got safetensors
    pickle_weights(clip / "model.safetensors", "pytorch_model")
    t5 = place("google/flan-t5-xl")
    write_network("t5", SMALL["flan-t5-xl-encoder"], t5, "full")
    word_tokenizer(("a", "cat")).save(str(t5 / "tokenizer.json"))
    infinity = place("FoundationVision/Infinity")
    one, other = write_pickles(SMALL["infinity-2b"], SMALL["bsq-d32"], infinity, 2)
    one.rename(infinity / "infinity_2b_reg.pth")
    other.rename(infinity / "infinity_vae_d32reg.pth")


def pickle_weights(weights: Path, stem: str | None = None) -> None:
    """The same weights as a pickle, in the safetensors' place."""
    torch.save(load_file(weights), weights.with_name(f"{stem or weights.stem}.bin"))
    weights.unlink()


def small(folder: Path) -> ModelSet:
    """The manifest's spec made that of the small networks."""
    path = folder / "model_set.json"
    manifest = json.loads(path.read_text())
    manifest["spec"] |= dict(SMALL_SPEC)
    if manifest["spec"]["regions"] is not None:
        manifest["spec"]["regions"] |= dict(SMALL_REGIONS)
    path.write_text(json.dumps(manifest))
    return open_model_set(str(folder))
