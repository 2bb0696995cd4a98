"""A golden set of Infinity (`--golden DIR`, README there): found, not known; reads are counted."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import T5Config, T5EncoderModel

from farm.backbones.infinity.loading import load_transformer, load_vae
from farm.backbones.infinity.networks import InfinityNetworks, spec_of
from farm.backbones.infinity.operations import OPERATIONS
from farm.backbones.infinity.quantiser import accumulate, quantise
from farm.backbones.infinity.schedules import table_schedule
from farm.backbones.infinity.text_encoder import T5TextEncoder
from tests.inline import Inline

OTHER_DEFAULT = Path(__file__).parents[1] / "golden" / "stylediffusion"
DEFAULT = Path(__file__).parents[1] / "golden" / "infinity"


@dataclass
class Vectors:
    """Arrays of one file, and which of them were asked for."""

    path: Path
    read: set[str] = field(default_factory=set)

    @cached_property
    def _arrays(self):
        with np.load(self.path) as file:
            return {name: file[name] for name in file.files}

    @property
    def names(self):
        return list(self._arrays)

    @property
    def unread(self):
        return sorted(self._arrays.keys() - self.read)

    def array(self, name):
        self.read.add(name)
        return self._arrays[name]

    def __getitem__(self, name):
        """The array as a tensor; half precision as single."""
        found = self.array(name)
        return torch.from_numpy(found.astype(np.float32) if found.dtype == np.float16 else found)

    def unpacked(self, name, shape):
        """Packed bits as booleans of a shape."""
        bits = np.unpackbits(self.array(name))[: int(np.prod(shape))]
        return torch.from_numpy(bits.reshape(shape).astype(bool))

    def having(self, prefix):
        return [name for name in self._arrays if name.startswith(prefix)]


@dataclass
class Folder:
    """One network of the set with its vectors."""

    path: Path

    @cached_property
    def config(self):
        return json.loads((self.path / "config.json").read_text())

    @cached_property
    def transformer(self):
        return load_transformer(self.path / "transformer.safetensors")

    @cached_property
    def vae(self):
        return load_vae(self.path / "vae.safetensors")

    @cached_property
    def core(self):
        return Vectors(self.path / "golden_core.npz")

    @cached_property
    def edits(self):
        """Vectors of editing, by whether the attention biases are in use."""
        return {has_biases(p): Vectors(p) for p in sorted(self.path.glob("golden_edit_*.npz"))}

    @cached_property
    def large_edits(self):
        return {has_biases(p): Vectors(p) for p in sorted(self.path.glob("golden_edit1M_*.npz"))}

    @property
    def files(self):
        return [self.core, *self.edits.values(), *self.large_edits.values()]

    def schedule(self, size=None):
        ratio = f"{self.config['ratio']:.3f}"
        cell = 2 if self.config["patchify"] else 1
        stride = self.config["patch_size"]
        return table_schedule(ratio, size or self.config["pn"], cell=cell, stride=stride)

    def spec(self, size=None):
        sizes, vae = self.transformer.config, self.vae.config
        return spec_of("golden", sizes, vae, size=size or self.config["pn"])

    def executor(self, size=None):
        """This folder's operations; the text encoder is a stand-in that nothing asks."""
        config = T5Config(
            vocab_size=8,
            d_model=8,
            d_kv=4,
            d_ff=8,
            num_layers=1,
            num_heads=2,
        )
        text = T5TextEncoder(T5EncoderModel(config))
        networks = InfinityNetworks(self.transformer, self.vae, text, self.spec(size), "cpu")
        return Inline(networks, OPERATIONS)

    @cached_property
    def text(self):
        """Text rows of each sample."""
        lengths = self.core["text_lens"].tolist()
        return list(self.core["text_kv"].split(lengths))

    @cached_property
    def images(self):
        return self.core["image_u8"].permute(0, 3, 1, 2).contiguous().float() / 255

    @cached_property
    def features(self):
        """Encoder output of both samples."""
        with torch.no_grad():
            return self.vae.encode(self.images)

    @cached_property
    def quantised(self):
        return quantise(self.features, self.schedule())

    @cached_property
    def stored(self):
        """The stored bits of both samples, summed up."""
        schedule = self.schedule()
        bits = [self.core[f"vae_bits_{k}"].bool() for k in range(schedule.num_scales)]
        return accumulate([b.permute(0, 3, 1, 2) for b in bits], schedule)


def has_biases(path):
    return not path.stem.endswith("nobias")


def set_of(option):
    """The folder that `--golden` names, ours where it names that of another method by default."""
    return DEFAULT if option is None or Path(option) == OTHER_DEFAULT else Path(option)


def folders_of(root):
    return [Folder(path.parent) for path in sorted(root.glob("*/config.json"))]
