"""The frozen networks of a latent-diffusion model set, loaded once per process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModel

from farm.backbones.clip import ImageEncoder, TextEncoder
from farm.backbones.map_cache import MapCache
from farm.backbones.stable_diffusion import Autoencoder, NoisePredictor
from farm.errors import ModelSetError
from farm.model_spec import ModelSpec

_MAP_CACHE_BYTES = 1 << 30
"""Ten inversions of Stable Diffusion 1 with 30 steps (95 MB each)."""


@dataclass(frozen=True)
class Networks:
    """What the operations of a latent-diffusion model compute with; `maps` alone ever changes."""

    unet: NoisePredictor
    vae: Autoencoder
    text: TextEncoder
    image: ImageEncoder
    spec: ModelSpec
    device: str
    maps: MapCache = field(default_factory=lambda: MapCache(_MAP_CACHE_BYTES))

    def modules(self) -> dict[str, nn.Module]:
        """Each network by name, each once."""
        return {"unet": self.unet, "vae": self.vae, "text": self.text, "image": self.image}


def load_networks(
    folder: Path, spec: ModelSpec, device: str, *, map_cache_bytes: int = _MAP_CACHE_BYTES
) -> Networks:
    """Networks from a folder in Hugging Face layout; nothing is fetched.

    The folder holds `unet/`, `vae/` and either one `clip/` with both towers or Stable Diffusion's
    `text_encoder/` beside an `image_encoder/`. Weights are safetensors of any precision; they are
    computed with in single precision.

    Raises:
        ModelSetError: naming the folder or file that is missing, broken, or does not fit `spec`.
    """
    unet = _loaded(UNet2DConditionModel, folder / "unet")
    vae = _loaded(AutoencoderKL, folder / "vae")
    text, image = _load_clip(folder)
    _check_fit(folder, spec, unet.config, vae.config, text.config, image.config)
    return Networks(
        unet=NoisePredictor(unet, spec).to(device),
        vae=Autoencoder(vae).to(device),
        text=TextEncoder(text).to(device),
        image=ImageEncoder(image).to(device),
        spec=spec,
        device=device,
        maps=MapCache(map_cache_bytes),
    )


def _load_clip(folder: Path) -> tuple[CLIPTextModel, CLIPVisionModel]:
    if (folder / "clip").is_dir() or not (folder / "text_encoder").is_dir():
        clip = _loaded(CLIPModel, folder / "clip")
        return clip.text_model, clip.vision_model
    return (
        _loaded(CLIPTextModel, folder / "text_encoder"),
        _loaded(CLIPVisionModel, folder / "image_encoder"),
    )


def _loaded(model: Any, folder: Path) -> Any:
    """A network of a Hugging Face class, with every weight found."""
    if not (folder / "config.json").is_file():
        raise ModelSetError(f"{folder / 'config.json'} is missing: fetch the model set again")
    if not any(folder.glob("*.safetensors")):
        raise ModelSetError(
            f"{folder} holds no .safetensors file: fetch the weights again, in that format"
        )
    load: Callable[..., tuple[Any, dict[str, Any]]] = model.from_pretrained
    try:
        network, found = load(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelSetError(f"{folder} cannot be loaded: {error}") from error
    # the libraries only warn of these and compute with random numbers
    broken = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
    if broken:
        raise ModelSetError(
            f"{folder} lacks or misshapes {len(broken)} weights, the first is {broken[0]}: "
            "its config.json belongs to another network, or the file is incomplete"
        )
    return network


def _check_fit(folder: Path, spec: ModelSpec, unet: Any, vae: Any, text: Any, image: Any) -> None:
    found = {
        "unet latent channels": (unet["in_channels"], spec.latent_channels),
        "unet text width": (unet["cross_attention_dim"], spec.text_width),
        "vae latent channels": (vae["latent_channels"], spec.latent_channels),
        "vae reduction": (
            2 ** (len(vae["block_out_channels"]) - 1),
            spec.image_size // spec.latent_size,
        ),
        "text positions": (text.max_position_embeddings, spec.tokens),
        "text encoder width": (text.hidden_size, spec.text_width),
        "image encoder width": (image.hidden_size, spec.text_width),
        "image tokens": ((image.image_size // image.patch_size) ** 2 + 1, spec.image_tokens),
    }
    for name, (actual, stated) in found.items():
        if actual != stated:
            raise ModelSetError(
                f"{folder}: {name} is {actual}, and the model set's spec says {stated}; "
                "correct the spec or fetch the networks that it describes"
            )
