"""The frozen networks of an Infinity model set, loaded once per process."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from farm.backbones.filling import fill, on_meta
from farm.backbones.hub_names import fitted
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
from farm.backbones.room import bytes_left, carried, recomputes
from farm.backbones.weight_files import read_weights
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
    folder: Path,
    spec: InfinitySpec,
    device: str,
    *,
    recompute: bool | None = None,
    carry_text: bool = False,
) -> InfinityNetworks:
    """Networks from a folder with `infinity/`, `bsq_vae/` and `t5/`; nothing is fetched.

    On an accelerator blocks and text encoder are computed in bfloat16.

    Args:
        folder: of the model set.
        spec: what the folder is said to hold.
        device: where to compute.
        recompute: see `InfinityNetworks`; None: where a training step would not fit otherwise.
        carry_text: keep the text encoder's weights in main memory.

    Raises:
        ModelSetError: naming what is missing, broken, or does not fit `spec`.
    """
    half = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    transformer = load_transformer(folder / TRANSFORMER, device=device, dtype=half)
    vae = load_vae(folder / VAE, device=device)
    warn_of_pairing(transformer.config, vae.config, folder / VAE)
    place = "cpu" if carry_text else device
    text = load_text_encoder(folder / TEXT, device=place, dtype=half)
    if carry_text:
        carried(text, device)
    if recompute is None:
        recompute = recomputes(
            depth=spec.depth, width=spec.width, tokens=_most_tokens(spec), room=bytes_left(device)
        )
    networks = InfinityNetworks(transformer, vae, text, spec, device, recompute)
    check_fit(networks, str(folder))
    return networks


def _most_tokens(spec: InfinitySpec) -> int:
    """Of a square picture, which no other of the same size has many more of."""
    return spec.schedule_for(1, 1).num_tokens


def load_text_encoder(
    folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> T5TextEncoder:
    """T5's encoder from a folder in Hugging Face layout.

    Raises:
        ModelSetError: the folder is missing or broken.
    """
    if not (folder / "config.json").is_file():
        raise ModelSetError(f"{folder / 'config.json'} is missing: fetch the text encoder again")
    try:
        config = T5Config.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelSetError(f"{folder / 'config.json'} cannot be read: {error}") from error
    encoder = on_meta(lambda: T5EncoderModel(config))
    state = fitted(read_weights(folder), encoder.state_dict())

    def dtype_of(name: str) -> torch.dtype:
        # what leaves it overflows in fp16 (transformers keeps it apart for the same reason)
        keeps = dtype == torch.float16 and ".wo." in name
        return torch.float32 if keeps else dtype

    return T5TextEncoder(fill(encoder, state, str(folder), dtype_of, device))


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
