"""Conversions of released checkpoints, with a bar of what is written."""

from collections.abc import Mapping
from pathlib import Path

from farm.backbones.convert_networks import ConvertedNetwork, convert_network, unpickle_network
from farm.backbones.infinity.convert import Converted, Precision, convert_checkpoint
from jobs.bars import growing, tree_bytes

_SHARE: Mapping[Precision, float] = {"bf16": 0.5, "fp16": 0.5, "fp32": 1.0}
"""Bytes written of those read, about: checkpoints are published in single precision."""


def write_network(source: Path, folder: Path) -> ConvertedNetwork:
    """A DINO, CLIP or T5; see `convert_network`."""
    with growing(f"writing {folder}", folder, tree_bytes(source)):
        return convert_network(source, folder)


def write_unpickled(source: Path, folder: Path) -> None:
    """A network of Stable Diffusion that is published as a pickle; see `unpickle_network`."""
    with growing(f"writing {folder}", folder, tree_bytes(source)):
        unpickle_network(source, folder)


def write_checkpoint(source: Path, folder: Path, precision: Precision) -> Converted:
    """An Infinity or its autoencoder, into a folder of its kind; see `convert_checkpoint`."""
    expected = int(_SHARE[precision] * tree_bytes(source))
    with growing(f"writing {folder}", folder, expected):
        return convert_checkpoint(source, folder, precision, named=True)
