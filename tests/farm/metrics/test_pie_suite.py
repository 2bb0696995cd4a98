import json
import math
import shutil

import pytest
import torch

from farm.errors import ModelSetError
from farm.metrics.pie import region_psnr
from farm.metrics.pie_columns import COLUMNS
from farm.metrics.pie_suite import PieMetrics, published_networks
from farm.metrics.stand_ins import model_set_networks
from farm.metrics.structure import structure_distance
from farm.zoo.weights import SCENES_FOLDER
from tests.farm.metrics.networks import picture

PROMPTS = ("a red circle on sand", "a blue circle on sand")


@pytest.fixture(scope="module")
def networks():
    return model_set_networks(SCENES_FOLDER, "scenes")


@pytest.fixture
def case():
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    source = picture(3, 64, 64)
    return source, torch.lerp(source, picture(3, 64, 64, seed=1), 0.2 + 0.5 * mask), mask


def test_stand_ins_have_names_of_their_own(networks):
    names = PieMetrics(networks).names()
    assert names == [
        "structure_distance[scenes-caption_vit]",
        "psnr_unedited",
        "distance_unedited[features-scenes-vae]",
        "mse_unedited",
        "ssim_unedited",
        "clip_source[scenes-clip]",
        "clip_whole[scenes-clip]",
        "clip_edited[scenes-clip]",
    ]
    assert [name.partition("[")[0] for name in names] == list(COLUMNS)


@pytest.mark.parametrize("convention", ["released", "corrected"])
def test_every_figure_is_its_own_measure(networks, case, convention):
    source, edited, mask = case
    figures = PieMetrics(networks, convention)(source, edited, mask, *PROMPTS)
    pair = source[None], edited[None]
    expected = region_psnr(*pair, 1 - mask[None], convention).item()
    assert figures["psnr_unedited"] == pytest.approx(expected)
    options = {"released": (255.0, False), "corrected": (1.0, True)}[convention]
    keys = [networks.keys(p, levels=options[0], antialias=options[1]) for p in pair]
    assert figures["structure_distance[scenes-caption_vit]"] == pytest.approx(
        structure_distance(*keys).item()
    )
    black = (edited * mask)[None]
    for name, image, prompt in (
        ("clip_source", pair[0], PROMPTS[0]),
        ("clip_whole", pair[1], PROMPTS[1]),
        ("clip_edited", black, PROMPTS[1]),
    ):
        score = networks.clip(image, [prompt]).item()
        assert figures[f"{name}[scenes-clip]"] == pytest.approx(score, abs=1e-3)


def test_an_unchanged_picture_has_no_distance(networks, case):
    source, _, mask = case
    figures = PieMetrics(networks)(source, source, mask, PROMPTS[0], PROMPTS[0])
    assert figures["structure_distance[scenes-caption_vit]"] == 0
    assert figures["distance_unedited[features-scenes-vae]"] == 0
    assert figures["mse_unedited"] == 0
    assert figures["ssim_unedited"] == pytest.approx(1)
    assert figures["clip_source[scenes-clip]"] == figures["clip_whole[scenes-clip]"]


def test_regions_without_pixels_are_nan(networks, case):
    source, edited, mask = case
    everywhere = PieMetrics(networks)(source, edited, torch.ones_like(mask), *PROMPTS)
    assert {n for n, v in everywhere.items() if math.isnan(v)} == {
        "psnr_unedited",
        "distance_unedited[features-scenes-vae]",
        "mse_unedited",
        "ssim_unedited",
    }
    nowhere = PieMetrics(networks)(source, edited, torch.zeros_like(mask), *PROMPTS)
    assert {n for n, v in nowhere.items() if math.isnan(v)} == {"clip_edited[scenes-clip]"}


def test_networks_that_are_absent_are_an_early_error(tmp_path):
    with pytest.raises(ModelSetError) as raised:
        published_networks(tmp_path)
    for name in ("dino-vitb8", "squeezenet1_1-b8a52dc0.pth", "clip-vit-large-patch14"):
        assert name in raised.value.message
    with pytest.raises(ModelSetError, match="does not serve as networks for metrics"):
        model_set_networks(tmp_path, "nothing")
    shutil.copytree(SCENES_FOLDER / "clip", tmp_path / "clip")
    with pytest.raises(ModelSetError, match="does not serve as networks for metrics"):
        model_set_networks(tmp_path, "half")


def test_a_model_set_without_a_vit_takes_clips_keys(tmp_path):
    for part in ("clip", "vae", "tokenizer"):
        (tmp_path / part).symlink_to(SCENES_FOLDER / part)
    assert model_set_networks(tmp_path, "own").keys.name == "own-clip"
    (tmp_path / "caption_vit").mkdir()
    (tmp_path / "caption_vit" / "config.json").write_text('{"architecture": "none"}')
    with pytest.raises(ModelSetError, match="no ViT that timm builds"):
        model_set_networks(tmp_path, "own")


def test_keys_of_the_scenes_vit_see_its_own_channels(networks, case):
    """Block by block with the mean and std of its folder."""
    config = json.loads((SCENES_FOLDER / "caption_vit" / "config.json").read_text())
    about, vit = config["pretrained_cfg"], networks.keys.trunk
    mean, std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    image = case[0][None]
    with torch.no_grad():
        states = vit.norm_pre(vit._pos_embed(vit.patch_embed((image - mean) / std)))
        for block in vit.blocks[:-1]:
            states = block(states)
        _, expected, _ = vit.blocks[-1].attn.qkv(vit.blocks[-1].norm1(states)).chunk(3, dim=-1)
        torch.testing.assert_close(networks.keys(image), expected)
