"""Published layouts through the real path: equal to the library's own loading, and not copied."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, T5EncoderModel

from benchmarks.gpu.small import SMALL
from benchmarks.gpu.weights import write_network, write_shards
from farm.backbones.filling import fill, on_meta, single
from farm.backbones.hub_names import fitted
from farm.backbones.infinity.networks import load_text_encoder
from farm.backbones.weight_files import read_weights, weights_file
from farm.errors import ModelSetError
from tests.tiny import tiny_clip


def filled(name, folder, dtype_of=single):
    network = on_meta(SMALL[name].make)
    state = fitted(read_weights(folder), network.state_dict())
    return fill(network, state, str(folder), dtype_of)


def assert_same(found, expected):
    expected = expected.state_dict()
    assert found.state_dict().keys() == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[name].float()), name


@pytest.mark.parametrize("variant", ["full", "fp16"])
@pytest.mark.parametrize(
    ("part", "name", "library"),
    [("vae", "sd-vae", AutoencoderKL), ("text_encoder", "sd1-text", CLIPTextModel)],
)
def test_a_published_folder_gives_what_its_library_loads(tmp_path, part, name, library, variant):
    write_network(part, SMALL[name], tmp_path, variant)
    more = {"variant": "fp16"} if variant == "fp16" else {}
    expected = library.from_pretrained(tmp_path, local_files_only=True, **more)
    assert_same(filled(name, tmp_path), expected)


@pytest.mark.parametrize("tower", ["text_model", "vision_model"])
def test_a_tower_of_a_whole_clip_takes_nothing_of_the_other(tower):
    """Both have layers and tables of the same names and shapes."""
    clip = tiny_clip()
    alone = getattr(clip, tower).state_dict()
    for state in (clip.state_dict(), dict(reversed(clip.state_dict().items()))):
        found = fitted(state, alone)
        assert found.keys() == alone.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in alone.items())


def test_a_bare_tower_goes_where_the_network_has_one(tmp_path):
    checker = on_meta(SMALL["sd-safety"].make).state_dict()
    write_network("safety_checker", SMALL["sd-safety"], tmp_path, "full")
    published = read_weights(tmp_path)
    assert any(name.startswith("vision_model.vision_model.") for name in published)
    assert fitted(published, checker).keys() == checker.keys()
    prefixed = {f"text_model.{n}": t for n, t in tiny_clip().text_model.state_dict().items()}
    bare = {name.removeprefix("text_model."): tensor for name, tensor in prefixed.items()}
    assert fitted(bare, prefixed).keys() == prefixed.keys()


def test_shards_give_what_the_library_loads(tmp_path):
    """T5 whole and in shards of which each holds little; the decoder's are left alone."""
    write_network("t5", SMALL["flan-t5-xl-encoder"], tmp_path / "one", "full")
    files = list((tmp_path / "one").glob("*.safetensors"))
    state = load_file(files[0])
    assert any(name.startswith("decoder.") for name in state)
    shards = tmp_path / "shards"
    shards.mkdir()
    write_shards(state, shards, "model", 4000)
    (shards / "config.json").write_text((tmp_path / "one" / "config.json").read_text())
    assert len(list(shards.glob("*.safetensors"))) > 3
    expected = T5EncoderModel.from_pretrained(shards, local_files_only=True)
    assert_same(load_text_encoder(shards).encoder, expected)


def test_a_tied_table_stays_one(tmp_path):
    write_network("t5", SMALL["flan-t5-xl-encoder"], tmp_path, "full")
    encoder = load_text_encoder(tmp_path, dtype=torch.bfloat16).encoder
    assert encoder.shared.weight.data_ptr() == encoder.encoder.embed_tokens.weight.data_ptr()


def test_what_overflows_in_half_precision_stays_single(tmp_path):
    write_network("t5", SMALL["flan-t5-xl-encoder"], tmp_path, "full")
    encoder = load_text_encoder(tmp_path, dtype=torch.float16).encoder
    kept = {n for n, p in encoder.named_parameters() if p.dtype == torch.float32}
    assert kept
    assert all(".wo." in name for name in kept)


def test_weights_are_the_pages_of_their_file(tmp_path):
    """Every parameter's address lies in a mapping of the file: nothing was copied."""
    write_network("unet", SMALL["sd1-unet"], tmp_path, "full")
    network = filled("sd1-unet", tmp_path)
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(tmp_path) in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            mapped.append((start, end))
    assert mapped
    for name, parameter in network.named_parameters():
        place = parameter.data_ptr()
        assert any(start <= place < end for start, end in mapped), name
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_the_whole_precision_is_taken_before_the_half_and_averages_before_the_others(tmp_path):
    for name in ("", ".fp16", ".non_ema"):
        save_file({"x": torch.ones(1)}, tmp_path / f"diffusion_pytorch_model{name}.safetensors")
    assert weights_file(tmp_path).name == "diffusion_pytorch_model.safetensors"
    weights_file(tmp_path).unlink()
    assert weights_file(tmp_path).name == "diffusion_pytorch_model.fp16.safetensors"


def test_several_files_of_unknown_names_are_refused(tmp_path):
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ModelSetError, match=r"a\.safetensors, b\.safetensors, expected one"):
        weights_file(tmp_path)


def test_a_lost_shard_is_named(tmp_path):
    write_shards({"x": torch.ones(9), "y": torch.ones(9)}, tmp_path, "model", 40)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelSetError, match="lacks the shards model-00002"):
        read_weights(tmp_path)


def test_missing_and_misshapen_weights_are_counted_and_the_first_is_named(tmp_path):
    write_network("unet", SMALL["sd1-unet"], tmp_path, "full")
    state = read_weights(tmp_path)
    state["conv_in.weight"] = torch.ones(1)
    del state["conv_out.bias"]
    network = on_meta(SMALL["sd1-unet"].make)
    with pytest.raises(
        ModelSetError, match=r"misshapes 2 weights.*conv_in\.weight: found \(1,\), expected \(8, 4"
    ):
        fill(network, state, "here", single)


def test_a_matrix_may_be_stored_as_a_convolution_of_one_pixel():
    stored = {"decoder.mid_block.attentions.0.query.weight": torch.ones(3, 2, 1, 1)}
    expected = {"decoder.mid_block.attentions.0.to_q.weight": torch.ones(3, 2)}
    assert {n: t.shape for n, t in fitted(stored, expected).items()} == {
        "decoder.mid_block.attentions.0.to_q.weight": (3, 2)
    }


def test_config_of_a_written_folder_is_json(tmp_path):
    write_network("vae", SMALL["sd-vae"], tmp_path, "fp16")
    assert json.loads((tmp_path / "config.json").read_text())["_class_name"] == "AutoencoderKL"
