"""Attention layers by structure, against what runs; UNets that an edit could not control."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from farm.adapters.attention import AttentionControl, KeepStates, install_attention
from farm.adapters.attention_layers import attention_layers, check_layers
from farm.errors import ModelSetError
from tests.tiny import WIDTH, tiny_unet

SMALL = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
SD1 = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 2,
}
SD2 = {**SD1, "use_linear_projection": True, "attention_head_dim": (1, 2, 2, 4)}


def build(**options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(**(SMALL | options)).eval()


@pytest.mark.parametrize(
    ("options", "size"), [(CROSS, 8), (CROSS, 12), (CROSS, 9), (SD1, 16), (SD2, 24)]
)
def test_sizes_are_those_of_the_layers_that_run(options: dict[str, Any], size: int) -> None:
    unet = build(**options, sample_size=size)
    layers = install_attention(unet, size)
    control = AttentionControl(keep=KeepStates(size**2, cross=True))
    inputs = (torch.zeros(1, 4, size, size), torch.tensor([1]), torch.zeros(1, 3, WIDTH))
    with torch.no_grad():
        unet(*inputs, cross_attention_kwargs={"control": control})
    assert {layer.name for layer in layers} == set(control.states)
    for layer in layers:
        query, key = control.states[layer.name]
        assert query.shape[2] == layer.size**2
        assert key.shape[2] == (3 if layer.is_cross else layer.size**2)


def test_places_are_those_of_stable_diffusion() -> None:
    """Spec §2: at 64 x 64 latents five maps of 16 x 16 outside the middle; 16 layers of each."""
    layers = attention_layers(build(**SD1), 64)
    for is_cross in (True, False):
        kind = [layer for layer in layers if layer.is_cross == is_cross]
        assert len(kind) == 16
        recorded = [layer for layer in kind if layer.place != "mid" and layer.size == 16]
        assert [layer.place for layer in recorded] == ["down"] * 2 + ["up"] * 3
        assert sum(layer.size == 64 for layer in kind) == 5


def test_a_unet_without_cross_attention_is_refused() -> None:
    unet = build(
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D")
    )
    with pytest.raises(ModelSetError, match="none of the UNet's 2 attention layers"):
        check_layers(install_attention(unet, 8), 4, 4)
    other = copy.deepcopy(unet)
    other.down_blocks[0].attention = Attention(8, heads=2, dim_head=4)
    with pytest.raises(ModelSetError, match=r"down_blocks\.0\.attention"):
        install_attention(other, 8)


@pytest.mark.parametrize(
    ("map_size", "self_size", "says"),
    [
        (16, 4, "16x16 queries, they have 8x8, 4x4: correct map_size"),
        (2, 4, "2x2 queries, they have 8x8, 4x4: correct map_size"),
        (4, 2, "2x2 queries or fewer, they have 8x8, 4x4: correct self_replace_size"),
    ],
)
def test_sizes_that_no_layer_has_are_named(map_size: int, self_size: int, says: str) -> None:
    with pytest.raises(ModelSetError, match=says):
        check_layers(attention_layers(tiny_unet(), 8), map_size, self_size)


def test_sizes_that_layers_have_pass() -> None:
    check_layers(attention_layers(tiny_unet(), 8), 4, 4)
    check_layers(attention_layers(tiny_unet(), 8), 8, 16)
