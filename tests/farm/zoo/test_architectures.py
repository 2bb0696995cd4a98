"""The real classes at full size against lists that were written without them."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from farm.backbones.filling import on_meta
from farm.backbones.infinity.bsq_vae import BsqVae
from farm.backbones.infinity.state_keys import (
    infinity_config,
    transformer_state,
    vae_config,
    vae_state,
)
from farm.backbones.infinity.transformer import Infinity
from farm.zoo.architectures import ARCHITECTURES, build

GOLDEN = Path(__file__).parents[2] / "golden" / "keys"
OURS = [name for name in ARCHITECTURES if name.startswith(("infinity", "bsq"))]
LIBRARIES = [name for name in ARCHITECTURES if name not in OURS]

PUBLISHED = {
    "sd1-unet": 859_520_964,  # diffusers and the model cards
    "sd2-inpainting-unet": 865_925_124,
    "sd-vae": 83_653_863,
    "sd1-text": 123_060_480,
    "sd2-text": 340_387_840,
    "clip-b32": 151_277_313,  # open_clip's table of models
    "clip-b16": 149_620_737,
    "clip-l14": 427_616_513,
    "dino-b8": 85_807_872,
    "dino-b16": 85_798_656,
    "infinity-125m": 125_148_800,  # specs/edit_infinity.md, §1
    "infinity-2b": 2_204_564_032,
    "infinity-8b": 8_375_791_824,
}


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def shapes_of(state):
    return {key: list(tensor.shape) for key, tensor in state.items()}


def released(name):
    """A checkpoint's tensors without memory; the buffers of zeros are there, and read."""
    return {
        key: torch.zeros(shape, device="cpu" if key.endswith("zero_k_bias") else "meta")
        for key, shape in golden(name)["shapes"].items()
    }


def test_the_lists_are_what_their_script_writes():
    spec = importlib.util.spec_from_file_location("write_keys", GOLDEN / "write.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    lists = script.all_lists()
    assert lists == {path.stem: golden(path.stem)["shapes"] for path in GOLDEN.glob("*.json")}
    assert lists.keys() == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_library_s_class_has_these_keys_and_shapes(name):
    network = build(name)
    assert shapes_of(network.state_dict()) == golden(name)["shapes"]
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize("name", [n for n in OURS if n.startswith("infinity")])
def test_a_released_transformer_is_ours(name):
    state = transformer_state(released(name), name)
    config = infinity_config(state, name)
    network = on_meta(lambda: Infinity(config))
    assert shapes_of(network.state_dict()) == shapes_of(state)
    assert build(name).config == config, "the size is read off the shapes"


@pytest.mark.parametrize("name", [n for n in OURS if n.startswith("bsq")])
def test_a_released_autoencoder_is_ours(name):
    state = vae_state(released(name), name)
    config = vae_config(state, name)
    network = on_meta(lambda: BsqVae(config))
    assert shapes_of(network.state_dict()) == shapes_of(state)
    assert build(name).config == config


@pytest.mark.parametrize("name", PUBLISHED)
def test_there_are_as_many_numbers_as_published(name):
    assert sum(p.numel() for p in build(name).parameters()) == PUBLISHED[name]
    stated = golden(name)
    zeros = [key for key in stated["shapes"] if key.endswith("zero_k_bias")]
    more = sum(math.prod(stated["shapes"][key]) for key in zeros)
    assert stated["numbers"] - more == PUBLISHED[name]
