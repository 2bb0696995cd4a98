"""Published networks that metrics need: where their weights are expected, and what is absent.

Weights are never fetched and never replaced by others: whoever measures calls `require` first, and
what is missing is one error that names all of it, before anything was computed.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights
from torchvision.models import WeightsEnum as TorchvisionWeights
from transformers import CLIPImageProcessorPil, CLIPModel

from farm.errors import ModelSetError
from farm.metrics.clip_score import ClipScorer, folder_tokenizer
from farm.metrics.distance import InputRange
from farm.metrics.keys import KeyNetwork, vit_keys
from farm.metrics.normalisation import IMAGENET, Channels
from farm.metrics.perceptual import LearnedDistance, LpipsTrunk, build_lpips

_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
"""torchvision's file names end in the beginning of their SHA-256."""

DINO = "dino-vitb8"
CLIP = "clip-vit-large-patch14"
_TRUNKS: Mapping[LpipsTrunk, TorchvisionWeights] = {
    "alex": AlexNet_Weights.IMAGENET1K_V1,
    "squeeze": SqueezeNet1_1_Weights.IMAGENET1K_V1,
    "vgg": VGG16_Weights.IMAGENET1K_V1,
}


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of others.

    Attributes:
        files: what must lie in the folder of weights.
        source: where these files come from.
    """

    files: tuple[str, ...]
    source: str


def _trunk_file(trunk: LpipsTrunk) -> str:
    return _TRUNKS[trunk].url.rpartition("/")[2]


def _published() -> dict[str, PublishedNetwork]:
    """By the names that `require` takes."""
    networks = {
        f"lpips-{trunk}": PublishedNetwork(
            (_trunk_file(trunk),), f"torchvision's {type(weights).__name__}.{weights.name}"
        )
        for trunk, weights in _TRUNKS.items()
    }
    networks[DINO] = PublishedNetwork(
        (f"{DINO}/model.safetensors",), "model.safetensors of timm's vit_base_patch8_224.dino"
    )
    files = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
    networks[CLIP] = PublishedNetwork(
        tuple(f"{CLIP}/{name}" for name in files),
        "OpenAI's clip-vit-large-patch14",
    )
    return networks


PUBLISHED: Mapping[str, PublishedNetwork] = _published()


def require(folder: Path, names: Iterable[str]) -> None:
    """Check, before anything is computed, that these networks' weights are there.

    Raises:
        ModelSetError: naming each file that is missing or damaged and where it comes from.
    """
    wrong: list[str] = []
    for name in names:
        network = PUBLISHED[name]
        for file in network.files:
            problem = _problem(folder / file)
            if problem is not None:
                wrong.append(f"{file} {problem} ({name}: {network.source})")
    if wrong:
        raise ModelSetError(
            f"the folder of metric weights {folder} is not complete: {'; '.join(wrong)}; put these "
            "files there, or measure with the model set's own networks, under their own names"
        )


def _problem(path: Path) -> str | None:
    if not path.is_file():
        return "is missing"
    stated = _DIGEST.search(path.name)
    if stated is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found.startswith(stated[1]) else f"has digest {found[:8]}…, not its name's"


def load_lpips(
    folder: Path, trunk: LpipsTrunk, *, input_range: InputRange = "symmetric"
) -> LearnedDistance:
    """LPIPS with a published trunk; the heads come with the `lpips` package.

    Raises:
        ModelSetError: the trunk's weights are missing or damaged.
    """
    name = f"lpips-{trunk}"
    require(folder, [name])
    # finds the file in the folder, which `require` has seen, and fetches nothing
    state: Mapping[str, Any] = _TRUNKS[trunk].get_state_dict(
        model_dir=str(folder), map_location="cpu", weights_only=True, progress=False
    )
    return LearnedDistance(build_lpips(trunk, state), name=name, input_range=input_range)


def load_dino(folder: Path) -> KeyNetwork:
    """Keys of DINO ViT-B/8 at 224 pixels: 785 tokens of 768.

    Raises:
        ModelSetError: its weights are missing or another network's.
    """
    require(folder, [DINO])
    with torch.random.fork_rng(devices=[]):
        vit = timm.create_model("vit_base_patch8_224", pretrained=False, num_classes=0)
    assert isinstance(vit, VisionTransformer)
    return load_vit_keys(vit, folder / DINO / "model.safetensors", name=DINO, size=224)


def load_vit_keys(
    vit: VisionTransformer, weights: Path, *, name: str, size: int, channels: Channels = IMAGENET
) -> KeyNetwork:
    """A timm ViT with all its weights from a safetensors file.

    Raises:
        ModelSetError: the file is none, or another network's.
    """
    try:
        state: dict[str, Tensor] = load_file(weights)
        vit.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelSetError(f"{weights} cannot be loaded as {name}: {error}") from error
    return vit_keys(vit, name=name, size=size, channels=channels)


def load_clip(folder: Path) -> ClipScorer:
    """CLIP ViT-L/14 with the preprocessing and the tokenizer of its own folder.

    Raises:
        ModelSetError: its weights are missing or another network's.
    """
    require(folder, [CLIP])
    try:
        model = CLIPModel.from_pretrained(
            folder / CLIP, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        processor = CLIPImageProcessorPil.from_pretrained(folder / CLIP, local_files_only=True)
        tokenize = folder_tokenizer(folder / CLIP, model)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelSetError(f"{folder / CLIP} cannot be loaded: {error}") from error
    return ClipScorer(model, tokenize, processor, name=CLIP)
