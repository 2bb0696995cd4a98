import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.backbones.infinity.convert import convert_checkpoint
from farm.backbones.infinity.loading import GROUPS, load_transformer, load_vae
from farm.errors import InvalidRequestError, ModelSetError
from tests.farm.backbones.infinity.layouts import released_transformer, released_vae
from tests.tiny_infinity import VAE_CONFIG, tiny_transformer, tiny_vae


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(released_transformer(2), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_a_transformer_is_written_once_and_loaded_as_it_was(checkpoint, tmp_path):
    done = convert_checkpoint(checkpoint, tmp_path / "out", "fp32")
    assert done.kind == "infinity"
    assert [p.name for p in done.files] == ["model.safetensors"]
    parameters = sum(p.numel() for p in tiny_transformer().parameters())
    assert done.numbers == parameters
    assert 4 * parameters < done.bytes < 4 * parameters + 20_000  # names and shapes
    for name, tensor in tiny_transformer().state_dict().items():
        assert torch.equal(load_transformer(tmp_path / "out").state_dict()[name], tensor)


def test_half_the_bytes_are_the_rounded_numbers(checkpoint, tmp_path):
    convert_checkpoint(checkpoint, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    expected = tiny_transformer().state_dict()
    assert tensors.keys() == expected.keys(), "no zeros, nothing unused, no chunks"
    halved = {name for name, tensor in tensors.items() if tensor.dtype == torch.bfloat16}
    assert {n for n in halved if "ffn" in n} == {n for n in tensors if "ffn" in n}, (
        "matrices and their biases"
    )
    assert {"head.weight", "blocks.0.sa.q_bias", "blocks.1.ada_gss"}.isdisjoint(halved)
    for name, tensor in tensors.items():
        wanted = expected[name].bfloat16() if name in halved else expected[name]
        assert torch.equal(tensor, wanted)


def test_large_models_come_in_shards(checkpoint, tmp_path):
    done = convert_checkpoint(checkpoint, tmp_path / "out", "fp32", shard_bytes=8_000)
    assert len(done.files) > 3
    assert done.files[-1].name == "model.safetensors.index.json"
    for path in done.files[:-1]:
        held = sum(t.numel() for t in load_file(path).values())
        assert held * 4 <= 8_000 or len(load_file(path)) == 1
    found = load_transformer(tmp_path / "out").state_dict()
    for name, tensor in tiny_transformer().state_dict().items():
        assert torch.equal(found[name], tensor)


def test_an_autoencoder_keeps_what_its_file_says_and_every_digit(tmp_path):
    source = tmp_path / "vae.safetensors"
    save_file(released_vae(), source, metadata={GROUPS: str(VAE_CONFIG.groups)})
    assert convert_checkpoint(source, tmp_path / "out").kind == "bsq_vae"
    found = load_vae(tmp_path / "out")
    assert found.config == VAE_CONFIG
    for name, tensor in tiny_vae().state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_nothing_is_written_where_something_is_wrong(tmp_path, checkpoint):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, other)
    with pytest.raises(ModelSetError, match="neither an Infinity"):
        convert_checkpoint(other, tmp_path / "out")
    state = released_transformer()
    del state["head.bias"]
    save_file(state, other)
    with pytest.raises(ModelSetError, match=r"lacks head\.bias"):
        convert_checkpoint(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert_checkpoint(checkpoint, tmp_path / "out")
    with pytest.raises(InvalidRequestError, match="holds safetensors already"):
        convert_checkpoint(checkpoint, tmp_path / "out")
