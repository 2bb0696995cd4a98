import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from farm.backbones.infinity.bsq_vae import BsqVae, BsqVaeConfig
from farm.backbones.infinity.config import released
from farm.backbones.infinity.loading import (
    GROUPS,
    PairingWarning,
    load_transformer,
    load_vae,
    patchified,
    warn_of_pairing,
)
from farm.errors import ModelSetError
from tests.farm.backbones.infinity.layouts import released_transformer, released_vae, write_shards
from tests.tiny_infinity import CONFIG, VAE_CONFIG, tiny_transformer, tiny_vae

GROUPS_OF_TINY = {GROUPS: str(VAE_CONFIG.groups)}


def assert_same_weights(model, expected):
    assert model.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.parametrize("chunks", [1, 2])
@pytest.mark.parametrize("layout", ["file", "pickle", "nested", "shards"])
def test_every_released_layout_gives_the_same_model(tmp_path, chunks, layout):
    state = released_transformer(chunks)
    path = tmp_path / "infinity"
    if layout == "shards":
        write_shards(state, path)
    elif layout == "file":
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    else:
        path = tmp_path / "model.pth"
        torch.save(state if layout == "pickle" else {"trainer": {"gpt_fsdp": state}}, path)
    model = load_transformer(path)
    assert model.config == CONFIG
    assert_same_weights(model, tiny_transformer())
    assert not any(p.requires_grad for p in model.parameters())


def test_tensors_with_a_type_wrapper_are_read(tmp_path):
    """As the 2B was saved: each tensor of a class that is stored with it."""
    state = {n: torch.nn.Parameter(t) for n, t in released_transformer().items()}
    torch.save(state, tmp_path / "model.pth")
    assert_same_weights(load_transformer(tmp_path / "model.pth"), tiny_transformer())


def test_blocks_without_chunks_are_read(tmp_path):
    save_file(tiny_transformer().state_dict(), tmp_path / "model.safetensors")
    assert_same_weights(load_transformer(tmp_path), tiny_transformer())


def test_scales_in_another_kernels_shape_are_read(tmp_path):
    state = released_transformer()
    name = "block_chunks.0.module.1.sa.scale_mul_1H11"
    state[name] = state[name].reshape(1, 1, -1, 1)
    save_file(state, tmp_path / "model.safetensors")
    assert_same_weights(load_transformer(tmp_path), tiny_transformer())


def test_matrices_of_blocks_alone_are_in_half_precision(tmp_path):
    save_file(released_transformer(), tmp_path / "model.safetensors")
    model = load_transformer(tmp_path, dtype=torch.bfloat16)
    halves = {n for n, p in model.named_parameters() if p.dtype == torch.bfloat16}
    singles = {n for n, p in model.named_parameters()} - halves
    assert all(n.startswith("blocks.") and n.endswith((".weight", ".bias")) for n in halves)
    assert len(halves) == 12 * CONFIG.depth
    assert {"head.weight", "word_embed.weight", "cfg_uncond", "blocks.0.ada_gss"} <= singles
    assert {"blocks.1.ca_norm.weight", "blocks.1.sa.scale_mul_1H11"} <= singles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.weight"), "lacks head.weight"),
        (lambda s: s.pop("word_embed.weight"), "'word_embed.weight' is missing"),
        (lambda s: s.update({"extra.weight": torch.ones(2)}), "has extra.weight, which"),
        (
            lambda s: s.update({"block_chunks.0.module.0.ffn.fcg.weight": torch.ones(2)}),
            "gated feed-forward",
        ),
        (
            lambda s: s.update({"block_chunks.0.module.0.ca.mat_q.bias": torch.ones(3)}),
            r"other shapes: blocks.0.ca.mat_q.bias \(3,\) for \(16,\)",
        ),
        (
            lambda s: s.update({"block_chunks.0.module.0.sa.zero_k_bias": torch.ones(16)}),
            "zero_k_bias is not zero",
        ),
    ],
)
def test_a_file_of_another_model_is_named_by_what_is_wrong(tmp_path, change, message):
    state = released_transformer()
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelSetError, match=message):
        load_transformer(tmp_path)


def test_a_lost_block_is_noticed(tmp_path):
    state = {n: t for n, t in tiny_transformer().state_dict().items() if "blocks.0." not in n}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelSetError, match="blocks 1 are there"):
        load_transformer(tmp_path)


def test_broken_files_are_said_to_be(tmp_path):
    with pytest.raises(ModelSetError, match="is missing"):
        load_transformer(tmp_path / "nowhere.pth")
    with pytest.raises(ModelSetError, match="holds 0 checkpoint files"):
        load_transformer(tmp_path)
    cut = tmp_path / "cut.safetensors"
    save_file(released_transformer(), cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ModelSetError, match="cut short"):
        load_transformer(cut)
    torn = tmp_path / "torn.pth"
    torch.save(released_transformer(), torn)
    torn.write_bytes(torn.read_bytes()[:500])
    with pytest.raises(ModelSetError, match="cannot be read"):
        load_transformer(torn)
    write_shards(released_transformer(), tmp_path / "shards")
    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelSetError, match="lacks the shards model-00002"):
        load_transformer(tmp_path / "shards")
    save_file(released_vae(), tmp_path / "vae.safetensors")
    with pytest.raises(ModelSetError, match="no Infinity transformer"):
        load_transformer(tmp_path / "vae.safetensors")


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_that_could_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth").write_bytes(pickle.dumps({"pos_start": Harmful()}))
    with pytest.raises(ModelSetError, match="cannot be read"):
        load_transformer(tmp_path / "model.pth")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("short", [False, True])
def test_an_autoencoder_is_read_with_both_spellings(tmp_path, short):
    path = tmp_path / "vae.safetensors"
    save_file(released_vae(short=short), path, metadata=GROUPS_OF_TINY)
    found = load_vae(path)
    assert found.config == VAE_CONFIG
    assert_same_weights(found, tiny_vae())


def test_another_normalisation_must_be_said(tmp_path):
    save_file(released_vae(), tmp_path / "vae.safetensors")
    with pytest.raises(ModelSetError, match=r"\(8, 8, 8, 16\) channels.*32 groups"):
        load_vae(tmp_path / "vae.safetensors")


def test_an_autoencoders_training_state_is_passed_over(tmp_path):
    config = replace(VAE_CONFIG, base=32, groups=32)  # as released: a .pth knows no groups
    state = {n: t.clone() for n, t in tiny_vae(config).state_dict().items()}
    torch.save({"vae": state, "discriminator": {"w": torch.ones(2)}, "step": 3}, tmp_path / "v.pth")
    found = load_vae(tmp_path / "v.pth")
    assert found.config == config
    assert_same_weights(found, tiny_vae(config))


def test_released_autoencoders_have_the_published_numbers_of_tensors():
    sizes = {"bits": 32, "base": 128, "encoder_blocks": 2, "decoder_blocks": 3}
    for multipliers, keys in (((1, 2, 4, 4, 4), 270), ((1, 2, 4, 4), 226)):
        with torch.device("meta"):
            model = BsqVae(BsqVaeConfig(multipliers=multipliers, **sizes))
        # released files have the quantiser's mask twice besides
        assert len(model.state_dict()) + 2 == keys
        if len(multipliers) == 5:
            assert count(model.encoder) == pytest.approx(45.03e6, rel=1e-3)
            assert count(model.decoder) == pytest.approx(65.09e6, rel=1e-3)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_tokens_are_cells_or_patches_of_them():
    assert not patchified(CONFIG, VAE_CONFIG)
    assert patchified(replace(CONFIG, token_bits=16), VAE_CONFIG)
    with pytest.raises(ModelSetError, match=r"24 bits a token, the autoencoder 4"):
        patchified(replace(CONFIG, token_bits=24), VAE_CONFIG)


def test_a_pair_that_cannot_be_one_is_warned_of():
    two = released(2048, 32, 16, 32)
    vae = BsqVaeConfig(32, 128, (1, 2, 4, 4, 4), 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_pairing(two, vae, Path("infinity_vae_d32reg.pth"))
        eight = released(3584, 40, 28, 56)
        warn_of_pairing(eight, replace(vae, bits=14, multipliers=(1, 2, 4, 4)), Path("d56.pth"))
        warn_of_pairing(CONFIG, VAE_CONFIG, Path("tiny"))
    for other, name, reason in (
        (vae, "infinity_vae_d32.pth", "d32reg"),
        (replace(vae, bits=16), "d16.pth", "do not fit"),
        (replace(vae, bits=8), "d8.pth", "32 pixels wide"),
    ):
        with pytest.warns(PairingWarning, match=reason):
            warn_of_pairing(two, other, Path(name))
