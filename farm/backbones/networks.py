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
from farm.backbones.dino import load_dino
from farm.backbones.infinity.networks import InfinityNetworks, load_infinity_networks
from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.inpainting import Inpainter
from farm.backbones.map_cache import MapCache, StateCache
from farm.backbones.region_networks import RegionNetworks
from farm.backbones.scorer import Scorer
from farm.backbones.stable_diffusion import Autoencoder, NoisePredictor
from farm.errors import ModelSetError
from farm.model_spec import ModelSpec

_MAP_CACHE_BYTES = 1 << 30
"""Ten inversions of Stable Diffusion 1 with 30 steps (95 MB each)."""
_SOURCE_CACHE_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
"""A source of Stable Diffusion 1 takes 2.6 GB for 30 steps, one of the scenes set 12 MB for 20."""


@dataclass(frozen=True)
class Networks:
    """What operations of a latent-diffusion model compute with; its caches alone ever change."""

    unet: NoisePredictor
    vae: Autoencoder
    text: TextEncoder
    image: ImageEncoder
    spec: ModelSpec
    device: str
    regions: RegionNetworks | None = None
    """Where the model set has them."""
    infinity: InfinityNetworks | None = None
    """Where the model set has one."""
    maps: MapCache = field(default_factory=lambda: MapCache(_MAP_CACHE_BYTES))
    sources: StateCache = field(default_factory=lambda: StateCache(_SOURCE_CACHE_BYTES["cpu"]))

    def modules(self) -> dict[str, nn.Module]:
        """Each network by name, each once."""
        parts = [part.modules() for part in (self.regions, self.infinity) if part is not None]
        more = {name: module for part in parts for name, module in part.items()}
        return {
            "unet": self.unet,
            "vae": self.vae,
            "text": self.text,
            "image": self.image,
            **more,
        }


def load_networks(
    folder: Path,
    spec: ModelSpec,
    device: str,
    *,
    map_cache_bytes: int = _MAP_CACHE_BYTES,
    source_cache_bytes: int | None = None,
) -> Networks:
    """Networks from a folder in Hugging Face layout; nothing is fetched.

    The folder holds `unet/`, `vae/` and either one `clip/` with both towers or Stable Diffusion's
    `text_encoder/` beside an `image_encoder/`. Where the spec has `regions`, also `dino/`,
    `inpainting/` (a UNet) and a whole CLIP as `scorer/`, or `clip/` for that; where it has
    `infinity`, also `infinity/`, `bsq_vae/` and `t5/`. Weights are safetensors of any precision;
    they are computed with in single precision.

    Args:
        folder: of the model set.
        spec: what the folder is said to hold.
        device: where to compute.
        map_cache_bytes: room for recorded maps.
        source_cache_bytes: room for the attention of edits' sources; None: by the device.

    Raises:
        ModelSetError: naming the folder or file that is missing, broken, or does not fit `spec`.
    """
    if source_cache_bytes is None:
        kind = torch.device(device).type
        source_cache_bytes = _SOURCE_CACHE_BYTES.get(kind, _SOURCE_CACHE_BYTES["cpu"])
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
        regions=None if spec.regions is None else _load_regions(folder, spec, device),
        infinity=_load_infinity(folder, spec, device),
        maps=MapCache(map_cache_bytes),
        sources=StateCache(source_cache_bytes),
    )


def _load_infinity(folder: Path, spec: ModelSpec, device: str) -> InfinityNetworks | None:
    if spec.infinity is None:
        return None
    return load_infinity_networks(folder, InfinitySpec.of(spec.name, spec.infinity), device)


def _load_clip(folder: Path) -> tuple[CLIPTextModel, CLIPVisionModel]:
    if (folder / "clip").is_dir() or not (folder / "text_encoder").is_dir():
        clip = _loaded(CLIPModel, folder / "clip")
        return clip.text_model, clip.vision_model
    return (
        _loaded(CLIPTextModel, folder / "text_encoder"),
        _loaded(CLIPVisionModel, folder / "image_encoder"),
    )


def _load_regions(folder: Path, spec: ModelSpec, device: str) -> RegionNetworks:
    own_name = folder / "dino"  # a ViT that is not DINO says so by its folder
    dino = load_dino(own_name if own_name.is_dir() else folder / "caption_vit")
    assert spec.regions is not None
    if dino.patch != spec.regions.dino_patch:
        raise ModelSetError(
            f"{folder / 'dino'}: DINO has patches of {dino.patch} pixels, and the model set's spec "
            f"says {spec.regions.dino_patch}; correct the spec or fetch the network it describes"
        )
    own = folder / "scorer"
    clip = _loaded(CLIPModel, own if own.is_dir() else folder / "clip")
    return RegionNetworks(
        dino=dino.to(device),
        scorer=Scorer(clip).to(device),
        inpainter=Inpainter(_loaded(UNet2DConditionModel, folder / "inpainting"), spec).to(device),
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
