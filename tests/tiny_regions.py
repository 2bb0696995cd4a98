"""Tiny frozen networks for Learnable Regions: random, deterministic, of the real classes."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from farm.backbones.dino import Dino
from farm.backbones.inpainting import Inpainter
from farm.backbones.networks import Networks
from farm.backbones.region_networks import RegionNetworks
from farm.backbones.scorer import Scorer
from farm.model_spec import ModelSpec, RegionSpec
from farm.zoo.model_sets import write_manifest
from tests.tiny import WIDTH, tiny_clip, tiny_networks, tiny_spec, write_tiny_set
from tests.tiny import _seeded as seeded

DINO_ARGS = {"img_size": 16, "patch_size": 2, "embed_dim": 12, "depth": 2, "num_heads": 3}
"""A map of 8x8 cells."""


def tiny_region_spec(prediction: str = "epsilon") -> ModelSpec:
    regions = RegionSpec.model_validate(
        {"dino_size": 16, "dino_patch": 2, "inpainting_prediction": prediction}
    )
    return tiny_spec().model_copy(update={"regions": regions})


def tiny_dino(seed: int = 0) -> Dino:
    vit = seeded(lambda: VisionTransformer(**DINO_ARGS, num_classes=0), seed)
    return Dino(vit, mean=(0.5,) * 3, std=(0.25,) * 3)


def tiny_inpainting_unet(seed: int = 0) -> UNet2DConditionModel:
    return seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=9,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        seed,
    )


def tiny_region_networks(spec: ModelSpec | None = None, *, seed: int = 0) -> Networks:
    """All networks of a tiny model set, those of Learnable Regions included."""
    spec = tiny_region_spec() if spec is None else spec
    regions = RegionNetworks(
        dino=tiny_dino(seed),
        scorer=Scorer(tiny_clip(seed)),
        inpainter=Inpainter(tiny_inpainting_unet(seed), spec),
    )
    return replace(tiny_networks(spec, seed=seed), regions=regions)


def write_tiny_dino(folder: Path) -> None:
    """A folder as timm's are on the hub."""
    folder.mkdir(parents=True)
    save_file(tiny_dino().vit.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": DINO_ARGS,
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_tiny_region_set(folder: Path) -> None:
    """A whole model-set folder of these networks."""
    write_tiny_set(folder)
    write_tiny_dino(folder / "dino")
    tiny_inpainting_unet().save_pretrained(folder / "inpainting")
    write_manifest(
        folder, tiny_region_spec(), defaults="scenes", licence="Apache-2.0", source="tests"
    )


def picture(height: int = 16, width: int = 16, seed: int = 7) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
