import json

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from farm.backbones.convert import read_pth
from farm.backbones.dino import Dino, build_official_dino, load_dino
from farm.errors import InvalidRequestError, ModelSetError
from tests.tiny import _seeded as seeded
from tests.tiny_regions import DINO_ARGS, picture, tiny_dino, write_tiny_dino


def dynamic_vit():
    args = {**DINO_ARGS, "num_classes": 0, "dynamic_img_size": True}
    return seeded(lambda: VisionTransformer(**args), 3)


def normalised(image, dino):
    return (image - dino.mean) / dino.std


@pytest.fixture
def images():
    return torch.stack([picture(seed=1), picture(seed=2)])


def test_tokens_are_timm_s(images):
    dino = tiny_dino()
    with torch.no_grad():
        found = dino(images)
        expected = dino.vit.forward_features(normalised(images, dino))
    torch.testing.assert_close(found.tokens, expected, atol=1e-5, rtol=1e-5)


def test_attention_and_keys_are_those_that_the_last_layer_computes_with(images):
    """The [CLS] row of its unfused attention, caught where timm drops out of it."""
    dino = tiny_dino()
    attention = dino.vit.blocks[-1].attn
    attention.fused_attn = False
    seen = []
    handle = attention.attn_drop.register_forward_hook(lambda *args: seen.append(args[2]))
    caught = []
    keys = attention.qkv.register_forward_hook(lambda *args: caught.append(args[2]))
    with torch.no_grad():
        dino.vit.forward_features(normalised(images, dino))
        handle.remove()
        keys.remove()
        found = dino(images)
    torch.testing.assert_close(found.attention, seen[0][:, :, 0])
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(2, DINO_ARGS["num_heads"]))
    width = DINO_ARGS["embed_dim"]
    torch.testing.assert_close(found.keys, caught[0][..., width : 2 * width])


def test_pixels_go_in_as_they_are_where_asked(images):
    dino = tiny_dino()
    with torch.no_grad():
        raw = dino(images, normalise=False)
        again = dino(images * dino.std + dino.mean)
    torch.testing.assert_close(raw.tokens, again.tokens, atol=1e-4, rtol=1e-4)


def test_other_sizes_are_timm_s_where_no_offset_is_asked(images):
    dino = Dino(dynamic_vit())
    wide = F.interpolate(images, (12, 20))
    with torch.no_grad():
        found = dino(wide).tokens
        expected = dino.vit.forward_features(normalised(wide, dino))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_offset_places_samples_as_dino_s_own_code_does():
    """Sample n of N + .1 lies at (n + .5) T / (N + .1) - .5; a cubic of a = -.75 by hand."""
    dino = Dino(dynamic_vit(), position_offset=0.1)
    side, target = 8, 10
    row = torch.rand(side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        dino.vit.pos_embed[0, 1:] = row.repeat(side, 1).flatten()[:, None]
    found = dino.positions(target, target)[0, 1:, 0].unflatten(0, (target, target))
    place = (torch.arange(target) + 0.5) * side / (target + 0.1) - 0.5
    cells = torch.arange(-3, side + 3)
    weights = cubic(place[:, None] - cells)
    expected = weights @ row[cells.clamp(0, side - 1)]
    torch.testing.assert_close(found[5], expected, atol=1e-5, rtol=1e-5)
    plain = Dino(dynamic_vit())
    assert not torch.allclose(plain.positions(target, target), dino.positions(target, target))


def cubic(distance, a=-0.75):
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0))


def test_the_table_s_own_size_is_untouched():
    dino = Dino(dynamic_vit(), position_offset=0.1)
    assert dino.positions(8, 8) is dino.vit.pos_embed


def test_sides_that_patches_do_not_divide_are_refused():
    with pytest.raises(InvalidRequestError, match=r"15x16.*multiples of its patch of 2"):
        tiny_dino()(torch.zeros(1, 3, 15, 16))


def test_a_folder_gives_back_what_was_saved(tmp_path, images):
    write_tiny_dino(tmp_path / "dino")
    loaded = load_dino(tmp_path / "dino")
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).tokens, tiny_dino()(images).tokens)
    assert loaded.mean.flatten().tolist() == [0.5] * 3
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.vit.training


def test_imagenet_s_mean_and_deviation_without_others(tmp_path):
    write_tiny_dino(tmp_path / "dino")
    path = tmp_path / "dino" / "config.json"
    config = json.loads(path.read_text())
    del config["pretrained_cfg"]
    path.write_text(json.dumps(config))
    dino = load_dino(tmp_path / "dino")
    expected = timm.create_model("vit_tiny_patch16_224.augreg_in21k").default_cfg  # any: same keys
    assert len(dino.mean.flatten()) == len(expected["mean"])
    assert dino.mean.flatten().tolist() == pytest.approx(timm.data.IMAGENET_DEFAULT_MEAN)
    assert dino.std.flatten().tolist() == pytest.approx(timm.data.IMAGENET_DEFAULT_STD)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text("{}"), "architecture"),
        (lambda f: (f / "config.json").write_text('{"architecture": "vit_none"}'), "vit_none"),
        (
            lambda f: (f / "config.json").write_text('{"architecture": "resnet18"}'),
            "no vision transformer",
        ),
    ],
    ids=["config", "weights", "fields", "unknown", "convolutions"],
)
def test_broken_folders_are_named(tmp_path, spoil, message):
    write_tiny_dino(tmp_path / "dino")
    spoil(tmp_path / "dino")
    with pytest.raises(ModelSetError, match=message):
        load_dino(tmp_path / "dino")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_must_fit(tmp_path, change):
    write_tiny_dino(tmp_path / "dino")
    path = tmp_path / "dino" / "model.safetensors"
    state = load_file(path)
    if change == "missing":
        del state["norm.bias"]
    elif change == "extra":
        state["norm.scale"] = torch.ones(2)
    else:
        state["norm.bias"] = torch.ones(2)
    save_file(state, path)
    with pytest.raises(ModelSetError, match=r"1 weights do not fit.*norm\.(bias|scale): found"):
        load_dino(tmp_path / "dino")


def test_official_weights_say_their_own_sizes(tmp_path, images):
    """64 channels a head, as all of DINO's; a head's weights are left out."""
    args = {"img_size": 24, "patch_size": 4, "embed_dim": 128, "depth": 2, "num_heads": 2}
    vit = seeded(lambda: VisionTransformer(**args, num_classes=0), 1)
    path = tmp_path / "dino.pth"
    torch.save(vit.state_dict() | {"head.last_layer.weight": torch.ones(3)}, path)
    dino = build_official_dino(read_pth(path))
    assert (dino.patch, dino.width, len(dino.vit.blocks)) == (4, 128, 2)
    assert dino.vit.blocks[0].attn.num_heads == 2
    assert dino.position_offset == 0.1
    pictures = F.interpolate(images, (24, 24))
    with torch.no_grad():
        expected = vit.forward_features(normalised(pictures, dino))
        torch.testing.assert_close(dino(pictures).tokens, expected, atol=1e-5, rtol=1e-5)


def test_other_official_files_are_refused():
    with pytest.raises(ModelSetError, match="is no DINO vision transformer"):
        build_official_dino({"conv1.weight": torch.ones(1)})
