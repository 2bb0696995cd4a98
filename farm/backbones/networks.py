"""The frozen networks of a latent-diffusion model set, loaded once per process."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModel

from farm.backbones.absent import AbsentImageEncoder, AbsentNoisePredictor
from farm.backbones.capture import StepCache
from farm.backbones.clip import ImageEncoder, TextEncoder
from farm.backbones.dino import load_dino
from farm.backbones.filling import fill, on_meta
from farm.backbones.hub_names import fitted
from farm.backbones.infinity.networks import InfinityNetworks, load_infinity_networks
from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.inpainting import Inpainter
from farm.backbones.loaded_sizes import loaded_sizes
from farm.backbones.map_cache import MapCache, StateCache
from farm.backbones.precision import (
    Precision,
    captures,
    compiles,
    keep_single,
    laid_out,
    precision_for,
)
from farm.backbones.region_networks import RegionNetworks
from farm.backbones.room import (
    batch_room,
    bytes_left,
    carried,
    parts_to_offload,
    source_cache_bytes,
)
from farm.backbones.safety import SafetyChecker
from farm.backbones.scorer import Scorer
from farm.backbones.stable_diffusion import Autoencoder, NoisePredictor
from farm.backbones.weight_files import read_weights
from farm.errors import ModelSetError
from farm.model_spec import ModelSpec, RegionSpec

M = TypeVar("M", bound=nn.Module)

_MAP_CACHE_BYTES = 1 << 30
"""Ten inversions of Stable Diffusion 1 with 30 steps (95 MB each)."""


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
    safety: SafetyChecker | None = None
    """Where the model set has one."""
    maps: MapCache = field(default_factory=lambda: MapCache(_MAP_CACHE_BYTES))
    sources: StateCache = field(default_factory=lambda: StateCache(source_cache_bytes(None)))
    steps: StepCache = field(default_factory=StepCache)
    """Runs training steps, captured where the device can."""

    def modules(self) -> dict[str, nn.Module]:
        """Each network by name, each once."""
        parts = [part.modules() for part in (self.regions, self.infinity) if part is not None]
        more = {name: module for part in parts for name, module in part.items()}
        if self.safety is not None:
            more["safety"] = self.safety
        return {
            "unet": self.unet,
            "vae": self.vae,
            "text": self.text,
            "image": self.image,
            **more,
        }

    def drop_caches(self) -> bool:
        """Give back what can be computed again; False if there was nothing.

        Not while something is computed: captured steps are no longer theirs who run them.
        """
        held = bool(len(self.maps) or len(self.sources) or self.steps.holds)
        self.maps.clear()
        self.sources.clear()
        self.steps.clear()
        return held

    def caches_to_fill(self) -> int:
        """Bytes that the caches may still take."""
        return sum(cache.max_bytes - cache.bytes for cache in (self.maps, self.sources))


def load_networks(
    folder: Path,
    spec: ModelSpec,
    device: str,
    *,
    map_cache_bytes: int = _MAP_CACHE_BYTES,
    source_bytes: int | None = None,
    precision: Precision | None = None,
) -> Networks:
    """Networks from a folder in Hugging Face layout; nothing is fetched.

    The folder holds `unet/` (unless the spec says that there is none), `vae/` and either one
    `clip/` with both towers or Stable Diffusion's `text_encoder/` beside an `image_encoder/`. Where
    the spec has `regions`, also `dino/`, `inpainting/` (a UNet) and a whole CLIP as `scorer/`, or
    `clip/` for that; where it has `infinity`, also `infinity/`, `bsq_vae/` and `t5/`; where it has
    `safety`, also `safety_checker/`. Weights are safetensors of any precision.

    Args:
        folder: of the model set.
        spec: what the folder is said to hold.
        device: where to compute.
        map_cache_bytes: room for recorded maps.
        source_bytes: room for the attention of edits' sources; None: by what the device has left.
        precision: of each network; None: what suits the device.

    Raises:
        ModelSetError: naming the folder or file that is missing, broken, or does not fit `spec`.
    """
    kind = torch.device(device).type
    keep_single(device)
    reserve = batch_room(device)
    precision = precision or precision_for(device)
    sizes = loaded_sizes(folder, device, precision)
    away = parts_to_offload(sizes, bytes_left(device), reserve=reserve)
    loader = _Loader(folder, spec, device, precision, away)
    loaded = loader.load()
    if source_bytes is None:
        source_bytes = source_cache_bytes(bytes_left(device), reserve=reserve)
    return replace(
        loaded,
        maps=MapCache(map_cache_bytes),
        sources=StateCache(source_bytes),
        steps=StepCache(enabled=kind == "cuda" and captures(), compiled=compiles()),
    )


@dataclass(frozen=True)
class _Loader:
    """A model set's folder, and how its networks are to be computed."""

    folder: Path
    spec: ModelSpec
    device: str
    precision: Precision
    away: frozenset[str]
    """Parts whose weights stay in main memory."""

    def load(self) -> Networks:
        folder, spec, device = self.folder, self.spec, self.device
        unet = self._unet(folder / "unet") if spec.text_to_image else None
        vae = self._diffusion(AutoencoderKL, folder / "vae")
        text, image = self._towers()
        _check_fit(folder, spec, unet and unet.config, vae.config, text.config, image)
        predictor = AbsentNoisePredictor(spec.name)
        if unet is not None:
            predictor = NoisePredictor(unet, spec).to(device)
        return Networks(
            unet=predictor,
            vae=self._placed(Autoencoder(vae), "vae"),
            text=self._placed(TextEncoder(text), "text_encoder"),
            image=(
                AbsentImageEncoder(spec.name)
                if image is None
                else self._placed(ImageEncoder(image), "image_encoder")
            ),
            spec=spec,
            device=device,
            regions=None if spec.regions is None else self._regions(spec.regions),
            infinity=self._infinity(),
            safety=self._safety() if spec.safety else None,
        )

    def _towers(self) -> tuple[CLIPTextModel, CLIPVisionModel | None]:
        folder = self.folder
        if (folder / "clip").is_dir() or not (folder / "text_encoder").is_dir():
            clip = self._clip(CLIPModel, folder / "clip")
            return clip.text_model, clip.vision_model
        text = self._clip(CLIPTextModel, folder / "text_encoder")
        if not self.spec.text_to_image:
            return text, None
        return text, self._clip(CLIPVisionModel, folder / "image_encoder")

    def _regions(self, stated: RegionSpec) -> RegionNetworks:
        folder, device = self.folder, self.device
        own_name = folder / "dino"  # a ViT that is not DINO says so by its folder
        dino = load_dino(own_name if own_name.is_dir() else folder / "caption_vit")
        if dino.patch != stated.dino_patch:
            raise ModelSetError(
                f"{folder / 'dino'}: DINO has patches of {dino.patch} pixels, and the model set's "
                f"spec says {stated.dino_patch}; correct the spec or fetch the network it describes"
            )
        own = folder / "scorer"
        clip = self._clip(CLIPModel, own if own.is_dir() else folder / "clip")
        return RegionNetworks(
            dino=dino.to(device),
            scorer=Scorer(clip).to(device),
            inpainter=Inpainter(self._unet(folder / "inpainting"), self.spec).to(device),
        )

    def _safety(self) -> SafetyChecker:
        checker = self._clip(StableDiffusionSafetyChecker, self.folder / "safety_checker")
        return SafetyChecker(checker).to(self.device)

    def _unet(self, folder: Path) -> Any:
        unet = self._diffusion(UNet2DConditionModel, folder, self.precision.unet)
        return laid_out(unet, self.precision)

    def _diffusion(self, model: Any, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
        """A network of a diffusers class."""
        config = _config(folder, lambda: model.load_config(folder, local_files_only=True))
        return self._filled(on_meta(lambda: model.from_config(config)), folder, dtype)

    def _clip(self, model: Any, folder: Path) -> Any:
        """A CLIP, one of its towers, or what is made of one; in single precision."""
        load = model.config_class.from_pretrained
        config = _config(folder, lambda: load(folder, local_files_only=True))
        return self._filled(on_meta(lambda: model(config)), folder, torch.float32)

    def _filled(self, network: Any, folder: Path, dtype: torch.dtype) -> Any:
        state = fitted(read_weights(folder), network.state_dict())
        device = "cpu" if folder.name in self.away else self.device
        return fill(network, state, str(folder), lambda _: dtype, device)

    def _placed(self, module: M, part: str) -> M:
        return carried(module, self.device) if part in self.away else module.to(self.device)

    def _infinity(self) -> InfinityNetworks | None:
        if self.spec.infinity is None:
            return None
        stated = InfinitySpec.of(self.spec.name, self.spec.infinity)
        carry = "t5" in self.away
        return load_infinity_networks(self.folder, stated, self.device, carry_text=carry)


def _config(folder: Path, load: Callable[[], Any]) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelSetError(f"{folder / 'config.json'} is missing: fetch the model set again")
    try:
        return load()
    except (OSError, ValueError) as error:
        raise ModelSetError(f"{folder / 'config.json'} cannot be read: {error}") from error


def _check_fit(
    folder: Path, spec: ModelSpec, unet: Any, vae: Any, text: Any, image: CLIPVisionModel | None
) -> None:
    found: dict[str, tuple[object, object]] = {}
    if unet is not None:
        found |= {
            "unet latent channels": (unet["in_channels"], spec.latent_channels),
            "unet text width": (unet["cross_attention_dim"], spec.text_width),
        }
    found |= {
        "vae latent channels": (vae["latent_channels"], spec.latent_channels),
        "vae reduction": (
            2 ** (len(vae["block_out_channels"]) - 1),
            spec.image_size // spec.latent_size,
        ),
        "text positions": (text.max_position_embeddings, spec.tokens),
        "text encoder width": (text.hidden_size, spec.text_width),
    }
    if image is not None:
        sizes: Any = image.config
        found |= {
            "image encoder width": (sizes.hidden_size, spec.text_width),
            "image tokens": ((sizes.image_size // sizes.patch_size) ** 2 + 1, spec.image_tokens),
        }
    for name, (actual, stated) in found.items():
        if actual != stated:
            raise ModelSetError(
                f"{folder}: {name} is {actual}, and the model set's spec says {stated}; "
                "correct the spec or fetch the networks that it describes"
            )
