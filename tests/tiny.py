"""Tiny frozen networks of the real classes: random, deterministic, made in well under a second."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from transformers import CLIPConfig, CLIPModel

from farm.backbones.clip import ImageEncoder, TextEncoder
from farm.backbones.networks import Networks
from farm.backbones.stable_diffusion import Autoencoder, NoisePredictor
from farm.backbones.tokenizer import PromptTokenizer
from farm.model_spec import ModelSpec
from farm.zoo.model_sets import write_manifest

TOKENS = 8
WIDTH = 16
WORDS = (
    *("a", "the", "one", "red", "blue", "green", "yellow", "white", "black", "striped", "plain"),
    *("cat", "dog", "tiger", "square", "circle", "star", "ball", "picture", "background"),
    *("on", "with", "and", "left", "right", "of", "sitting"),
)

M = TypeVar("M", bound=nn.Module)


def tiny_spec(prediction_type: str = "epsilon") -> ModelSpec:
    """8x8 latents of 16x16 pictures; maps of 4x4; self-attention replaced up to 4x4."""
    return ModelSpec.model_validate(
        {
            "name": "tiny",
            "image_size": 16,
            "latent_channels": 4,
            "latent_size": 8,
            "tokens": TOKENS,
            "text_width": WIDTH,
            "image_tokens": 5,
            "map_size": 4,
            "self_replace_size": 4,
            "prediction_type": prediction_type,
        }
    )


def tiny_networks(spec: ModelSpec | None = None, *, seed: int = 0) -> Networks:
    """A new set of networks; equal seeds give equal weights."""
    spec = tiny_spec() if spec is None else spec
    return Networks(
        unet=NoisePredictor(tiny_unet(seed), spec),
        vae=tiny_autoencoder(seed),
        text=tiny_text_encoder(seed),
        image=tiny_image_encoder(seed),
        spec=spec,
        device="cpu",
    )


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    """Cross-attention at 8x8 and 4x4 in down and up blocks, and at 4x4 in the middle."""
    return _seeded(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
        ),
        seed,
    )


def tiny_autoencoder(seed: int = 0) -> Autoencoder:
    return Autoencoder(
        _seeded(
            lambda: AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 8),
                layers_per_block=1,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=16,
            ),
            seed,
        )
    )


def tiny_clip(seed: int = 0) -> CLIPModel:
    """Two towers, both 16 wide; the image tower takes 16x16 pictures in patches of 8."""
    end = len(WORDS) + 1
    text = {
        "vocab_size": len(WORDS) + 2,
        "max_position_embeddings": TOKENS,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {"image_size": 16, "patch_size": 8}
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": WIDTH,
    }
    config = CLIPConfig(
        text_config=shared | text, vision_config=shared | vision, projection_dim=WIDTH
    )
    return _seeded(lambda: CLIPModel(config), seed)


def tiny_text_encoder(seed: int = 0) -> TextEncoder:
    return TextEncoder(tiny_clip(seed).text_model)


def tiny_image_encoder(seed: int = 0) -> ImageEncoder:
    return ImageEncoder(tiny_clip(seed).vision_model)


def write_tiny_tokenizer(folder: Path) -> None:
    """One token a word; words outside `WORDS` become the end token."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {word: number for number, word in enumerate([*WORDS, start, end])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=end))
    tokenizer.add_special_tokens([AddedToken(start), AddedToken(end)])
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_tiny_set(folder: Path) -> None:
    """A whole model-set folder of these networks."""
    tiny_unet().save_pretrained(folder / "unet")
    tiny_autoencoder().vae.save_pretrained(folder / "vae")
    tiny_clip().save_pretrained(folder / "clip")
    write_tiny_tokenizer(folder / "tokenizer")
    write_manifest(folder, tiny_spec(), defaults="scenes", licence="Apache-2.0", source="tests")


def tiny_tokenizer() -> PromptTokenizer:
    with TemporaryDirectory() as folder:
        write_tiny_tokenizer(Path(folder))
        return PromptTokenizer(Path(folder), TOKENS)


def _seeded(build: Callable[[], M], seed: int) -> M:
    """A module with weights drawn anew: the libraries initialise from the global generator only.

    Wider than default initialisations, so that no branch of a tiny network is nearly silent.
    """
    module = build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 25
            drawn = torch.randn(parameter.shape, generator=generator) / fan_in**0.5
            parameter.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return module
