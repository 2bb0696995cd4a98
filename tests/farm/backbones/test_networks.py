import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from farm.backbones.networks import Networks, _Loader, load_networks
from farm.errors import ModelSetError
from tests.tiny import (
    tiny_autoencoder,
    tiny_clip,
    tiny_networks,
    tiny_spec,
    tiny_unet,
)

SPEC = tiny_spec()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model set on disk in half precision, as they are shipped."""
    tiny_unet().half().save_pretrained(tmp_path / "unet")
    tiny_autoencoder().vae.half().save_pretrained(tmp_path / "vae")
    tiny_clip().half().save_pretrained(tmp_path / "clip")
    return tmp_path


def weights(networks: Networks) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, module in networks.modules().items()
        for key, tensor in module.state_dict().items()
    }


def test_what_is_loaded_is_what_was_saved_in_single_precision(folder: Path) -> None:
    loaded, built = weights(load_networks(folder, SPEC, "cpu")), weights(tiny_networks())
    assert loaded.keys() == built.keys()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, built[name].half().float()), name
        assert tensor.dtype == torch.float32


def test_networks_are_frozen(folder: Path) -> None:
    for module in load_networks(folder, SPEC, "cpu").modules().values():
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for child in module.children() for m in child.modules())


def test_the_source_cache_is_sized_by_what_the_loaded_networks_leave(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def left(_: str) -> int:
        order.append("asked")
        return (18 if "loaded" in order else 40) << 30

    monkeypatch.setattr("farm.backbones.networks.bytes_left", left)
    monkeypatch.setattr(_Loader, "load", lambda _: order.append("loaded") or tiny_networks())
    assert load_networks(folder, SPEC, "cpu").sources.max_bytes == 5 << 30
    assert order == ["asked", "loaded", "asked"]
    assert load_networks(folder, SPEC, "cpu", source_bytes=7).sources.max_bytes == 7


def test_towers_may_be_apart_as_stable_diffusion_ships_them(folder: Path) -> None:
    expected = weights(load_networks(folder, SPEC, "cpu"))
    clip = tiny_clip().half()
    clip.text_model.save_pretrained(folder / "text_encoder")
    clip.vision_model.save_pretrained(folder / "image_encoder")
    shutil.rmtree(folder / "clip")
    found = weights(load_networks(folder, SPEC, "cpu"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_published_layouts_of_the_towers_load(folder: Path) -> None:
    """Older files prefix the text tower and hold position ids; E is published as a whole CLIP."""
    expected = weights(load_networks(folder, SPEC, "cpu"))
    clip = tiny_clip().half()
    clip.text_model.save_pretrained(folder / "text_encoder")
    file = folder / "text_encoder" / "model.safetensors"
    plain = {n.removeprefix("text_model."): t for n, t in load_file(file).items()}
    old = {f"text_model.{name}": tensor for name, tensor in plain.items()}
    old["text_model.embeddings.position_ids"] = torch.arange(SPEC.tokens)[None]
    save_file(old, file, metadata={"format": "pt"})
    (folder / "clip").rename(folder / "image_encoder")
    found = weights(load_networks(folder, SPEC, "cpu"))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["unet", "vae", "clip"])
def test_a_missing_folder_is_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)
    with pytest.raises(ModelSetError, match=f"{name}/config.json is missing"):
        load_networks(folder, SPEC, "cpu")


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelSetError, match=r"vae holds no \.safetensors file"):
        load_networks(folder, SPEC, "cpu")


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(
        ModelSetError, match=r"unet/diffusion_pytorch_model\.safetensors cannot be read"
    ):
        load_networks(folder, SPEC, "cpu")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
        ("clip/model.safetensors", "text_model.final_layer_norm.weight"),
    ],
)
def test_an_incomplete_file_is_never_filled_with_random_numbers(
    folder: Path, file: str, key: str
) -> None:
    tensors = load_file(folder / file)
    del tensors[key]
    save_file(tensors, folder / file, metadata={"format": "pt"})
    with pytest.raises(ModelSetError, match=key):
        load_networks(folder, SPEC, "cpu")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = folder / "clip" / "config.json"
    changed = json.loads(config.read_text())
    changed["text_config"]["intermediate_size"] = 48
    config.write_text(json.dumps(changed))
    with pytest.raises(ModelSetError, match="clip"):
        load_networks(folder, SPEC, "cpu")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"tokens": 9}, "text positions is 8"),
        ({"text_width": 32}, "unet text width is 16"),
        ({"image_tokens": 6}, "image tokens is 5"),
        ({"latent_size": 4}, "vae reduction is 2"),
        ({"latent_channels": 3}, "unet latent channels is 4"),
    ],
)
def test_networks_that_the_spec_does_not_describe_are_refused(
    folder: Path, change: dict[str, int], found: str
) -> None:
    with pytest.raises(ModelSetError, match=found):
        load_networks(folder, SPEC.model_copy(update=change), "cpu")
