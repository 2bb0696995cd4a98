"""The zoo's ViT: timm's class with the scenes' numbers, its [CLS] attention, its files."""

import json
import math
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

ARCHITECTURE = "vit_tiny_patch16_224"
"""timm's name of the class that the scenes' numbers are given to."""
MODEL_ARGS: dict[str, Any] = {
    "img_size": 64,
    "patch_size": 4,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 4,
    "num_classes": 0,
    "dynamic_img_size": True,
    # bounded scores: [CLS] looks at all of an object alike, not at one patch of it
    "qk_norm": True,
}
MEAN, STD = 0.5, 0.25


def build_vit(patch_drop: float = 0.0) -> VisionTransformer:
    """Four layers, 96 wide, patches of 4 pixels: a [CLS] map of 16 x 16.

    Args:
        patch_drop: share of the patches that training hides, others at each step.
    """
    return VisionTransformer(**MODEL_ARGS, patch_drop_rate=patch_drop)


def plain_attention(vit: VisionTransformer) -> VisionTransformer:
    """Attention by matrix products: on CPU its backward is twice as fast as the fused one's."""
    for block in vit.blocks:
        attention: Any = block.attn
        attention.fused_attn = False
    return vit


def save_vit(vit: VisionTransformer, folder: Path) -> None:
    """fp16 weights and a configuration in a folder that timm loads by `local-dir:`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: t.half().contiguous() for n, t in vit.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    pictures = {"input_size": [3, 64, 64], "mean": [MEAN] * 3, "std": [STD] * 3}
    config = {
        "architecture": ARCHITECTURE,
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {**pictures, "num_classes": 0, "crop_pct": 1.0},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_vit(folder: Path) -> VisionTransformer:
    """What `save_vit` wrote, in fp32."""
    vit = build_vit()
    vit.load_state_dict({n: t.float() for n, t in load_file(folder / "model.safetensors").items()})
    return vit


def cls_attention(
    vit: VisionTransformer, images: Float[Tensor, "batch 3 size size"]
) -> Float[Tensor, "batch heads rows columns"]:
    """The last layer's attention of [CLS] to the patches."""
    blocks: Any = vit.blocks
    attention = blocks[-1].attn
    seen: list[Tensor] = []
    watch = attention.qkv.register_forward_hook(lambda *call: seen.append(call[2]))
    try:
        vit(normalised(images))
    finally:
        watch.remove()
    batch, count, _ = seen[0].shape
    query, key, _ = seen[0].view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    scores = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.shape[-1])
    side = math.isqrt(count - 1)
    return scores.softmax(-1)[:, :, 0, 1:].unflatten(-1, (side, side))


def attention_figures(maps: Float[Tensor, "batch rows columns"], truth: Tensor) -> dict[str, float]:
    """Mean IoU of the maps at the midpoint of their range with the masks, and pointing."""
    grown = F.interpolate(maps[:, None], size=truth.shape[-2:], mode="bilinear")[:, 0].flatten(1)
    low, high = grown.amin(1, keepdim=True), grown.amax(1, keepdim=True)
    found, flat = grown > (low + high) / 2, truth.flatten(1)
    union = (found | flat).sum(1)
    pointing = flat.gather(1, grown.argmax(1, keepdim=True)).float()
    return {
        "midpoint_iou": ((found & flat).sum(1) / union).mean().item(),
        "pointing": pointing.mean().item(),
    }


def normalised(images: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch 3 _ _"]:
    """Pixels in [0, 1] as the ViT takes them."""
    return (images - MEAN) / STD
