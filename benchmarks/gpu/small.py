"""Networks of the real classes, small enough for a test on a CPU, under the real ones' names.

`benchmarks.gpu.weights.write_set` writes them in the same formats, so the tests go the whole way
from a published layout to an edit.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from timm.models.vision_transformer import VisionTransformer
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

from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.transformer import Infinity
from farm.zoo.architectures import Architecture

WIDTH = 16
TOKENS = 32
_WORDS = 64
_T5_WORDS = 128

SMALL_SPEC: Mapping[str, Any] = MappingProxyType(
    {
        "image_size": 16,
        "latent_size": 8,
        "tokens": TOKENS,
        "text_width": WIDTH,
        "image_tokens": 5,
        "map_size": 4,
        "self_replace_size": 4,
    }
)
SMALL_REGIONS: Mapping[str, Any] = MappingProxyType({"dino_size": 16, "dino_patch": 2})
QUICK_REGIONS: Mapping[str, Any] = MappingProxyType(
    {
        "point_number": 2,
        "min_window_size": 1.0,
        "max_window_size": 2.0,
        "window_step": 1.0,
        "epochs": 1,
        "per_image_iteration": 2,
        "preview_steps": 2,
        "finalists": 1,
        "num_steps": 3,
    }
)
"""Parameters of Learnable Regions with which such networks edit in a second; for tests too."""
_TOWER = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "projection_dim": WIDTH,
}
_TEXT = {
    **_TOWER,
    "vocab_size": _WORDS,
    "max_position_embeddings": TOKENS,
    "bos_token_id": _WORDS - 2,
    "eos_token_id": _WORDS - 1,
}
_VISION = {**_TOWER, "image_size": 16, "patch_size": 8}
_UNET = {
    "sample_size": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}
_DINO = {"img_size": 16, "patch_size": 2, "embed_dim": 12, "depth": 2, "num_heads": 3}
_T5 = {
    "vocab_size": _T5_WORDS,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}


def _unet(channels: int) -> Architecture:
    config: dict[str, Any] = {**_UNET, "in_channels": channels}
    about = {**config, "_class_name": "UNet2DConditionModel"}
    return Architecture(lambda: UNet2DConditionModel(**config), about)


def _vae() -> Architecture:
    config: dict[str, Any] = _VAE
    return Architecture(lambda: AutoencoderKL(**config), {**_VAE, "_class_name": "AutoencoderKL"})


def _text() -> Architecture:
    config = CLIPTextConfig(**_TEXT)
    return Architecture(lambda: CLIPTextModel(config), config.to_dict())


def _vision() -> Architecture:
    config = CLIPVisionConfig(**_VISION)
    return Architecture(lambda: CLIPVisionModel(config), config.to_dict())


def _clip() -> Architecture:
    config = CLIPConfig(text_config=_TEXT, vision_config=_VISION, projection_dim=WIDTH)
    return Architecture(lambda: CLIPModel(config), config.to_dict())


def _safety() -> Architecture:
    config = CLIPConfig(vision_config=_VISION, projection_dim=WIDTH)
    return Architecture(lambda: StableDiffusionSafetyChecker(config), config.to_dict())


def _dino() -> Architecture:
    about = {"architecture": "vit_tiny_patch16_224", "model_args": _DINO}
    return Architecture(lambda: VisionTransformer(**_DINO, num_classes=0), about)


def _t5() -> Architecture:
    config = T5Config(**_T5)
    return Architecture(lambda: T5EncoderModel(config), config.to_dict())


def _infinity() -> Architecture:
    config = InfinityConfig(
        width=WIDTH,
        depth=2,
        heads=2,
        hidden=32,
        token_bits=4,
        text_width=WIDTH,
        text_rows=64,
        pool_heads=2,
    )
    return Architecture(lambda: Infinity(config), {})


def _bsq() -> Architecture:
    config = BsqVaeConfig(
        bits=4, base=32, multipliers=(1, 1, 1, 1, 1), encoder_blocks=1, decoder_blocks=1
    )
    return Architecture(lambda: BsqVae(config), {})


SMALL: Mapping[str, Architecture] = MappingProxyType(
    {
        "sd1-unet": _unet(4),
        "sd1-inpainting-unet": _unet(9),
        "sd2-inpainting-unet": _unet(9),
        "sd-vae": _vae(),
        "sd1-text": _text(),
        "sd2-text": _text(),
        "sd-safety": _safety(),
        "clip-b16": _clip(),
        "clip-b16-vision": _vision(),
        "dino-b8": _dino(),
        "flan-t5-xl-encoder": _t5(),
        "infinity-2b": _infinity(),
        "bsq-d32": _bsq(),
    }
)
"""By the names of `farm.zoo.architectures`."""
