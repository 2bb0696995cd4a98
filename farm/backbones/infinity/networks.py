"""The frozen networks of an Infinity model set, loaded once per process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import T5EncoderModel

from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.config import InfinityConfig
from farm.backbones.infinity.loading import (
    load_transformer,
    load_vae,
    patchified,
    warn_of_pairing,
)
from farm.backbones.infinity.schedules import Grid, Size
from farm.backbones.infinity.spec import InfinitySpec
from farm.backbones.infinity.text_encoder import T5TextEncoder
from farm.backbones.infinity.transformer import Infinity
from farm.errors import ModelSetError

TRANSFORMER, VAE, TEXT = "infinity", "bsq_vae", "t5"
"""Folders of a model set."""


@dataclass(frozen=True)
class InfinityNetworks:
    """What the operations of an Infinity model set compute with.

    Attributes:
        transformer: with frozen weights; its blocks may be in half precision.
        vae: in single precision, since bits near zero flip otherwise.
        text: T5's encoder.
        spec: what these are.
        device: where they are.
        recompute: keep the blocks' inputs alone in training steps, where memory is short.
    """

    transformer: Infinity
    vae: BsqVae
    text: T5TextEncoder
    spec: InfinitySpec
    device: str
    recompute: bool = False

    def modules(self) -> dict[str, nn.Module]:
        """Each network by name, each once."""
        return {TRANSFORMER: self.transformer, VAE: self.vae, TEXT: self.text}


def load_infinity_networks(
    folder: Path, spec: InfinitySpec, device: str, *, recompute: bool = False
) -> InfinityNetworks:
    """Networks from a folder with `infinity/`, `bsq_vae/` and `t5/`; nothing is fetched.

    On an accelerator blocks and text encoder are computed in bfloat16.

    Raises:
        ModelSetError: naming what is missing, broken, or does not fit `spec`.
    """
    half = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    transformer = load_transformer(folder / TRANSFORMER, device=device, dtype=half)
    vae = load_vae(folder / VAE, device=device)
    warn_of_pairing(transformer.config, vae.config, folder / VAE)
    text = load_text_encoder(folder / TEXT, device=device, dtype=half)
    networks = InfinityNetworks(transformer, vae, text, spec, device, recompute)
    check_fit(networks, str(folder))
    return networks


def load_text_encoder(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> T5TextEncoder:
    """T5's encoder from a folder in Hugging Face layout.

    Raises:
        ModelSetError: the folder is missing or broken.
    """
    if not (folder / "config.json").is_file():
        raise ModelSetError(f"{folder / 'config.json'} is missing: fetch the text encoder again")
    model: Any = T5EncoderModel  # annotated as if it never gave its loading report
    load: Callable[..., tuple[T5EncoderModel, dict[str, Any]]] = model.from_pretrained
    try:
        encoder, found = load(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelSetError(f"{folder} cannot be loaded: {error}") from error
    broken = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
    if broken:
        raise ModelSetError(
            f"{folder} lacks or misshapes {len(broken)} weights, the first is {broken[0]}: its "
            "config.json belongs to another network, or the file is incomplete"
        )
    return T5TextEncoder(encoder).to(device)


def spec_of(
    name: str,
    transformer: InfinityConfig,
    vae: BsqVaeConfig,
    *,
    size: Size | None = None,
    grids: tuple[Grid, ...] | None = None,
) -> InfinitySpec:
    """What a transformer and an autoencoder are together.

    Args:
        name: of the model set.
        transformer: its sizes.
        vae: its sizes.
        size: of the pictures, for models of the published schedules.
        grids: a schedule of its own instead.

    Raises:
        ModelSetError: the two do not fit together.
    """
    return InfinitySpec(
        name=name,
        width=transformer.width,
        depth=transformer.depth,
        hidden=transformer.hidden,
        text_width=transformer.text_width,
        text_rows=transformer.text_rows,
        latent_channels=vae.bits,
        stride=vae.stride,
        patchify=patchified(transformer, vae),
        size=size,
        grids=grids,
    )


def check_fit(networks: InfinityNetworks, source: str) -> None:
    """Whether the networks are what their spec says.

    Raises:
        ModelSetError: naming the first thing that is not.
    """
    spec, transformer, vae = networks.spec, networks.transformer.config, networks.vae.config
    pairs = {
        "width": (transformer.width, spec.width),
        "depth": (transformer.depth, spec.depth),
        "hidden": (transformer.hidden, spec.hidden),
        "text_width": (transformer.text_width, spec.text_width),
        "text encoder's width": (networks.text.width, spec.text_width),
        "text_rows": (transformer.text_rows, spec.text_rows),
        "latent_channels": (vae.bits, spec.latent_channels),
        "stride": (vae.stride, spec.stride),
        "patchify": (patchified(transformer, vae), spec.patchify),
    }
    for name, (found, stated) in pairs.items():
        if found != stated:
            raise ModelSetError(
                f"{source}: {name} is {found}, and the model set's spec says {stated}; correct the "
                "spec or fetch the networks that it describes"
            )
    scales = 13 if spec.grids is None else len(spec.grids)
    if scales > transformer.levels:
        raise ModelSetError(
            f"{source}: the schedule has {scales} scales, the transformer knows "
            f"{transformer.levels}: shorten the spec's grids"
        )
