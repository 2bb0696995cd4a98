"""The released networks at full size, without their weights: what a checkpoint of each must hold.

Configurations are those of the published `config.json` files, as far as they decide names and
shapes. Building one on the meta device takes no memory (`build`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import timm
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
)

from farm.backbones.filling import on_meta
from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.config import released
from farm.backbones.infinity.transformer import Infinity

_UNET: Mapping[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,  # heads, in spite of its name
    "cross_attention_dim": 768,
}
_SD2: Mapping[str, Any] = {
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_VAE: Mapping[str, Any] = {
    "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
_TEXT_L: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
_TEXT_H: Mapping[str, Any] = {
    **_TEXT_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,  # the last of 24 is left out: its input is what is listened to
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_TEXT_B: Mapping[str, Any] = {
    **_TEXT_L,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "projection_dim": 512,
}
_VISION_B: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "projection_dim": 512,
}
_VISION_L: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
_T5_XL: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_model": 2048,
    "d_kv": 64,
    "d_ff": 5120,
    "num_layers": 24,
    "num_heads": 32,
    "feed_forward_proj": "gated-gelu",
}


@dataclass(frozen=True)
class Architecture:
    """A released network.

    Attributes:
        make: the module, on whatever device is torch's default.
        config: what its folder's `config.json` holds; empty where sizes are read off the weights.
    """

    make: Callable[[], nn.Module]
    config: Mapping[str, Any]


def _unet(**changed: Any) -> Architecture:
    config = {**_UNET, **changed}
    about = {**config, "_class_name": "UNet2DConditionModel"}
    return Architecture(lambda: UNet2DConditionModel(**config), about)


def _clip(text: Mapping[str, Any], vision: Mapping[str, Any]) -> Architecture:
    config = CLIPConfig(
        text_config=dict(text),
        vision_config=dict(vision),
        projection_dim=text["projection_dim"],
    )
    return Architecture(lambda: CLIPModel(config), config.to_dict())


def _text(text: Mapping[str, Any]) -> Architecture:
    config = CLIPTextConfig(**text)
    return Architecture(lambda: CLIPTextModel(config), config.to_dict())


def _vision(vision: Mapping[str, Any]) -> Architecture:
    config = CLIPVisionConfig(**vision)
    return Architecture(lambda: CLIPVisionModel(config), config.to_dict())


def _safety() -> Architecture:
    config = CLIPConfig(vision_config=dict(_VISION_L), projection_dim=768)
    return Architecture(lambda: StableDiffusionSafetyChecker(config), config.to_dict())


def _dino(patch: int) -> Architecture:
    name = f"vit_base_patch{patch}_224"
    about = {
        "architecture": name,
        "num_classes": 0,
        "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    return Architecture(lambda: timm.create_model(name, num_classes=0), about)


def _t5() -> Architecture:
    config = T5Config(**_T5_XL)
    return Architecture(lambda: T5EncoderModel(config), config.to_dict())


def _infinity(width: int, depth: int, heads: int, bits: int) -> Architecture:
    return Architecture(lambda: Infinity(released(width, depth, heads, bits)), {})


def _bsq(bits: int, multipliers: tuple[int, ...] = (1, 2, 4, 4, 4)) -> Architecture:
    config = BsqVaeConfig(
        bits=bits, base=128, multipliers=multipliers, encoder_blocks=2, decoder_blocks=3
    )
    return Architecture(lambda: BsqVae(config), {})


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "sd1-unet": _unet(),
        "sd1-inpainting-unet": _unet(in_channels=9),
        "sd2-unet": _unet(**_SD2),
        "sd2-inpainting-unet": _unet(**_SD2, in_channels=9),
        "sd-vae": Architecture(
            lambda: AutoencoderKL(**_VAE), {**_VAE, "_class_name": "AutoencoderKL"}
        ),
        "sd1-text": _text(_TEXT_L),
        "sd2-text": _text(_TEXT_H),
        "sd-safety": _safety(),
        "clip-b32": _clip(_TEXT_B, {**_VISION_B, "patch_size": 32}),
        "clip-b16": _clip(_TEXT_B, _VISION_B),
        "clip-l14": _clip(_TEXT_L, _VISION_L),
        "clip-b16-vision": _vision(_VISION_B),
        "clip-l14-vision": _vision(_VISION_L),
        "dino-b8": _dino(8),
        "dino-b16": _dino(16),
        "flan-t5-xl-encoder": _t5(),
        "infinity-125m": _infinity(768, 12, 8, 16),
        "infinity-2b": _infinity(2048, 32, 16, 32),
        "infinity-8b": _infinity(3584, 40, 28, 56),
        "bsq-d16": _bsq(16),
        "bsq-d24": _bsq(24),
        "bsq-d32": _bsq(32),
        "bsq-d64": _bsq(64),
        "bsq-d14-f8": _bsq(14, (1, 2, 4, 4)),
    }
)


def build(name: str) -> nn.Module:
    """A released network at full size, without memory."""
    return on_meta(ARCHITECTURES[name].make)
