"""Attention layers of a UNet found by its structure: what each is, and how large its maps are."""

from dataclasses import dataclass
from typing import Literal

from diffusers import UNet2DConditionModel
from torch import nn

from farm.errors import ModelSetError

Place = Literal["down", "mid", "up"]


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer.

    Attributes:
        name: of its processor.
        is_cross: whether it attends to the prompt.
        place: kind of the block that it is in.
        size: side of its maps for latents of the side that was asked about.
    """

    name: str
    is_cross: bool
    place: Place
    size: int


def attention_layers(unet: UNet2DConditionModel, latent_size: int) -> list[AttentionLayer]:
    """All attention layers of a UNet for square latents, in the order of its blocks.

    Sizes follow from the samplers that the blocks really have, so a UNet of any depth will do.

    Raises:
        ModelSetError: a layer is no self- or cross-attention of a transformer block.
    """
    found: list[AttentionLayer] = []
    size = latent_size
    sizes = [size]
    for index, block in enumerate(unet.down_blocks):
        found += _layers_of(block, f"down_blocks.{index}", "down", size)
        if _has(block, "downsamplers"):
            size = -(-size // 2)  # a convolution of stride 2 rounds up
            sizes.append(size)
    found += _layers_of(unet.mid_block, "mid_block", "mid", size)
    for index, block in enumerate(unet.up_blocks):
        found += _layers_of(block, f"up_blocks.{index}", "up", sizes[-1])
        if _has(block, "upsamplers"):
            sizes.pop()
    known = {layer.name for layer in found}
    unknown = [name for name in unet.attn_processors if name not in known]
    if unknown:
        raise ModelSetError(
            f"the UNet has an attention layer {unknown[0]!r}, expected attn1 and attn2 of "
            "transformer blocks alone; use a text-to-image UNet2DConditionModel"
        )
    return found


def check_layers(layers: list[AttentionLayer], map_size: int, self_replace_size: int) -> None:
    """Refuse a UNet in which an edit would control nothing.

    Raises:
        ModelSetError: naming what is expected and what the layers have instead.
    """
    outside = [layer for layer in layers if layer.is_cross and layer.place != "mid"]
    if not outside:
        raise ModelSetError(
            f"none of the UNet's {len(layers)} attention layers is cross-attention in a down or up "
            "block, so nothing could be edited; use CrossAttnDownBlock2D and CrossAttnUpBlock2D"
        )
    if map_size not in {layer.size for layer in outside}:
        raise ModelSetError(
            f"no cross-attention in the UNet's down or up blocks has {map_size}x{map_size} "
            f"queries, they have {_sizes(outside)}: correct map_size in the model set's spec"
        )
    inside = [layer for layer in layers if not layer.is_cross]
    if not any(layer.size <= self_replace_size for layer in inside):
        raise ModelSetError(
            f"no self-attention of the UNet has {self_replace_size}x{self_replace_size} queries or "
            f"fewer, they have {_sizes(inside)}: correct self_replace_size in the model set's spec"
        )


def _layers_of(
    block: nn.Module | None, prefix: str, place: Place, size: int
) -> list[AttentionLayer]:
    """Layers named `….attn1` (self) and `….attn2` (cross) of one block."""
    names = [] if block is None else [name for name, _ in block.named_modules()]
    return [
        AttentionLayer(f"{prefix}.{name}.processor", name.endswith("attn2"), place, size)
        for name in names
        if name.endswith((".attn1", ".attn2"))
    ]


def _has(block: nn.Module, samplers: str) -> bool:
    return bool(getattr(block, samplers, None))


def _sizes(layers: list[AttentionLayer]) -> str:
    sizes = sorted({layer.size for layer in layers}, reverse=True)
    return ", ".join(f"{size}x{size}" for size in sizes) or "none"
