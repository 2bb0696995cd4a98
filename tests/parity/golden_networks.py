"""Golden networks in the farm's own classes; every size is read from the set."""

import json
import math
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from farm.backbones.clip import ImageEncoder
from farm.backbones.networks import Networks
from farm.backbones.stable_diffusion import NoisePredictor
from farm.model_spec import ModelSpec
from tests.tiny import tiny_autoencoder, tiny_image_encoder, tiny_text_encoder


def golden_spec_of(folder: Path) -> ModelSpec:
    """Spec of a set, or of its `full64` part: the contexts and the UNet state every size."""
    vectors = load_file(folder / _vectors_file(folder))
    config = json.loads((folder / "unet" / "config.json").read_text())
    _, tokens, width = vectors["ctx_source"].shape
    size = config["sample_size"]
    features = vectors.get("features")
    if features is None:
        features = load_file(folder / "mapping.safetensors")["features"]
    return ModelSpec(
        name=f"golden-{folder.name}",
        image_size=8 * size,
        latent_channels=config["in_channels"],
        latent_size=size,
        tokens=tokens,
        text_width=width,
        image_tokens=features.shape[1],
        map_size=_map_size(folder),
        self_replace_size=2 * _map_size(folder),
        prediction_type="epsilon",
    )


def _map_size(folder: Path) -> int:
    """Side of the recorded maps; a set's `full64` part has those of the set."""
    whole = folder if (folder / "ddim.safetensors").is_file() else folder.parent
    vectors = load_file(whole / "ddim.safetensors")
    (pixels,) = {t.shape[1] for n, t in vectors.items() if n.endswith("_layer0")}
    return math.isqrt(pixels)


def _vectors_file(folder: Path) -> str:
    return "ddim.safetensors" if (folder / "ddim.safetensors").is_file() else "edit.safetensors"


def golden_networks_of(
    unet_folder: Path, spec: ModelSpec, image_encoder: Path | None = None
) -> Networks:
    unet = UNet2DConditionModel.from_pretrained(unet_folder, torch_dtype=torch.float32)
    encoder = tiny_image_encoder() if image_encoder is None else vision_tower(image_encoder)
    return Networks(
        unet=NoisePredictor(unet, spec),
        vae=tiny_autoencoder(),
        text=tiny_text_encoder(),
        image=encoder,
        spec=spec,
        device="cpu",
    )


def vision_tower(path: Path) -> ImageEncoder:
    """An OpenAI-named image tower in transformers' class: `in_proj` there is q, k, v in one."""
    source = {name: tensor.float() for name, tensor in load_file(path).items()}
    width, _, patch, _ = source["conv1.weight"].shape
    layers = 1 + max(int(n.split(".")[2]) for n in source if n.startswith("transformer."))
    side = math.isqrt(source["positional_embedding"].shape[0] - 1)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=source["transformer.resblocks.0.mlp.c_fc.bias"].shape[0],
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=side * patch,
        patch_size=patch,
        hidden_act="quick_gelu",
    )
    tower = CLIPVisionModel(config)
    tower.load_state_dict(_renamed(source, layers), strict=False)
    return ImageEncoder(tower)


def _renamed(source: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    target = {
        "embeddings.class_embedding": source["class_embedding"],
        "embeddings.patch_embedding.weight": source["conv1.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
    }
    norms = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
    for layer in range(layers):
        old, new = f"transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        norms |= {f"{old}.ln_{n}": f"{new}.layer_norm{n}" for n in (1, 2)}
        norms |= {f"{old}.mlp.c_fc": f"{new}.mlp.fc1", f"{old}.mlp.c_proj": f"{new}.mlp.fc2"}
        norms[f"{old}.attn.out_proj"] = f"{new}.self_attn.out_proj"
        for kind in ("weight", "bias"):
            parts = source[f"{old}.attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                target[f"{new}.self_attn.{letter}_proj.{kind}"] = part
    for old, new in norms.items():
        target |= {f"{new}.{kind}": source[f"{old}.{kind}"] for kind in ("weight", "bias")}
    return target
