"""`editfarm models convert`: released files become part of a model set."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from farm.backbones.infinity.loading import GROUPS
from farm.backbones.networks import load_networks
from farm.zoo.model_sets import open_model_set
from farm.zoo.recipes.t5 import word_tokenizer
from jobs.models import app
from tests.farm.backbones.infinity.layouts import released_transformer, released_vae
from tests.tiny import write_tiny_set
from tests.tiny_infinity import VAE_CONFIG, WORDS, tiny_t5


def convert(*words):
    return CliRunner().invoke(app, ["convert", *map(str, words)])


@pytest.fixture
def released(tmp_path):
    """A transformer's file and an autoencoder's."""
    torch.save(released_transformer(2), tmp_path / "released.pth")
    about = {GROUPS: str(VAE_CONFIG.groups)}
    save_file(released_vae(), tmp_path / "vae.safetensors", metadata=about)
    return tmp_path / "released.pth", tmp_path / "vae.safetensors"


def test_a_model_set_gets_an_infinity(released, tmp_path):
    transformer, vae = released
    folder = tmp_path / "mine"
    write_tiny_set(folder)
    tiny_t5().save_pretrained(folder / "t5")
    word_tokenizer(WORDS).save(str(folder / "t5" / "tokenizer.json"))
    done = convert(transformer, folder, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["infinity"] is None, "the autoencoder is still missing"
    assert open_model_set(str(folder)).spec.infinity is None
    done = convert(vae, folder, "--size", "0.06M")
    assert done.exit_code == 0, done.output
    found = open_model_set(str(folder))
    found.verify()
    assert found.infinity.size == "0.06M"
    assert found.infinity.schedule_for(100, 200).name == "0.500/0.06M"
    networks = load_networks(found.folder, found.spec, "cpu")
    assert {"infinity", "bsq_vae", "t5"} <= networks.modules().keys()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--precision", "int4"), "'fp16', 'fp32'"),
        (("--size", "2M"), "is not one of '0.06M'"),
    ],
)
def test_a_wrong_choice_says_what_there_is(released, tmp_path, words, says):
    done = convert(released[0], tmp_path / "mine", *words)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())
    assert not (tmp_path / "mine").exists()


def test_a_file_that_is_cut_short_is_said_to_be(released, tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(released[0].read_bytes()[:2000])
    done = convert(broken, tmp_path / "mine")
    assert done.exit_code == 2
    assert "cannot be read" in " ".join(done.output.split())
