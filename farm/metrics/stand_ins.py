"""A model set's own networks where published ones are absent: never under the others' names."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from timm.models.vision_transformer import VisionTransformer
from transformers import CLIPImageProcessorPil, CLIPModel

from farm.errors import ModelSetError
from farm.metrics.clip_score import ClipScorer, folder_tokenizer
from farm.metrics.keys import KeyNetwork, clip_keys
from farm.metrics.normalisation import Channels
from farm.metrics.perceptual import autoencoder_distance
from farm.metrics.pie_suite import PieNetworks
from farm.metrics.weights import load_vit_keys

_VITS = ("dino", "caption_vit")
"""Folders that timm loads a ViT from, the first that is there."""


def model_set_networks(folder: Path, name: str) -> PieNetworks:
    """A model set's own networks as stand-ins, under the model set's name.

    Args:
        folder: of the model set: holds `clip/`, `vae/` and `tokenizer/`, and perhaps a ViT.
        name: of the model set; figures say for example `structure_distance[scenes-caption_vit]`.

    Raises:
        ModelSetError: a network is missing or cannot be loaded.
    """
    try:
        clip = CLIPModel.from_pretrained(
            folder / "clip", local_files_only=True, dtype=torch.float32
        )
        vae = AutoencoderKL.from_pretrained(
            folder / "vae", local_files_only=True, torch_dtype=torch.float32
        )
        tokenize = folder_tokenizer(folder / "tokenizer", clip)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelSetError(
            f"{folder} does not serve as networks for metrics: {error}; expected clip/, vae/ and "
            "tokenizer/"
        ) from error
    side = clip.vision_model.config.image_size
    assert isinstance(side, int), "CLIP takes square pictures"
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return PieNetworks(
        keys=_keys(folder, name, clip),
        perceptual=autoencoder_distance(vae, name=f"{name}-vae"),
        clip=ClipScorer(clip, tokenize, processor, name=f"{name}-clip"),
    )


def _keys(folder: Path, name: str, clip: CLIPModel) -> KeyNetwork:
    """Keys of the model set's ViT, or of CLIP's image tower where it has none."""
    for vit in _VITS:
        if (folder / vit / "config.json").is_file():
            return _vit_keys(folder / vit, f"{name}-{vit}")
    return clip_keys(clip.vision_model, name=f"{name}-clip")


def _vit_keys(folder: Path, name: str) -> KeyNetwork:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        about = config["pretrained_cfg"]
        channels = Channels(tuple(about["mean"]), tuple(about["std"]))
        size = int(about["input_size"][-1])
        with torch.random.fork_rng(devices=[]):
            vit = timm.create_model(config["architecture"], **config["model_args"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelSetError(f"{folder} holds no ViT that timm builds: {error}") from error
    if not isinstance(vit, VisionTransformer):
        raise ModelSetError(f"{folder}: found {type(vit).__name__}, expected a plain ViT of timm")
    weights = folder / "model.safetensors"
    return load_vit_keys(vit, weights, name=name, size=size, channels=channels)
