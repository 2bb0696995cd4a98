"""The table of released checkpoints, and the sets that are made of them."""

import json
from pathlib import Path

import pytest

from benchmarks.gpu.setting import write_small_set
from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.errors import ModelSetError
from farm.zoo.checking import check_networks, released_parts
from farm.zoo.checkpoints import CHECKPOINTS
from farm.zoo.model_sets import MODELS_VARIABLE, list_model_sets, open_model_set
from farm.zoo.released_sets import bytes_of, checkpoints_of, recipes_of, spec_for

GOLDEN = Path(__file__).parents[2] / "golden" / "keys"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_sizes_are_those_of_the_architectures(name):
    for network, numbers in CHECKPOINTS[name].numbers.items():
        golden = json.loads((GOLDEN / f"{network}.json").read_text())
        tied = 32128 * 2048 if network.startswith("flan") else 0  # one table under two names
        bits = golden["shapes"].get("quantizer.lfq.mask")
        table = 2 * bits[0] if bits else 0  # integers, under two names
        assert golden["numbers"] - tied in (numbers, numbers + table)


def test_a_digest_is_stated_only_where_it_is_published():
    stated = {name for name, one in CHECKPOINTS.items() if one.digests or one.revision}
    assert stated == {"clip-b32", "clip-b16", "clip-l14"}
    for name in stated:
        for digest in CHECKPOINTS[name].digests.values():
            assert len(bytes.fromhex(digest)) == 32


def test_every_checkpoint_says_its_terms_and_where_it_is():
    for one in CHECKPOINTS.values():
        assert one.licence
        assert one.repository.count("/") == 1
        assert one.bytes > 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sd16", "no released model set 'sd16'"),
        ("sd15+sd14", "no released model set"),
        ("regions", "expected one of sd14, sd15, sd2-inpainting"),
        ("sd15+regions+regions", "no released model set"),
        ("sd15+infinity-2b+infinity-8b", "more than one Infinity"),
        ("sd2-inpainting+regions", "has its regions already"),
    ],
)
def test_a_name_that_makes_no_set_is_refused(name, says):
    with pytest.raises(ModelSetError, match=says):
        recipes_of(name)


def test_a_set_that_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(ModelSetError) as caught:
        open_model_set("sd15+regions")
    assert "editfarm models pull sd15+regions" in caught.value.message
    assert f"({bytes_of('sd15+regions') / 1e9:.1f} GB; Apache-2.0, CreativeML" in (
        caught.value.message
    )
    assert set(checkpoints_of("sd15+regions")) == {
        *("sd15", "clip-b16", "sd15-inpainting", "dino-b8")
    }


def test_specs_are_those_of_the_networks(tmp_path):
    spec = spec_for("sd15", tmp_path)
    assert (spec.text_width, spec.image_tokens, spec.latent_shape) == (768, 197, (4, 64, 64))
    assert (spec.safety, spec.text_to_image, spec.regions) == (True, True, None)
    other = spec_for("sd2-inpainting", tmp_path)
    assert (other.text_width, other.text_to_image, other.safety) == (1024, False, False)
    assert other.regions is not None


def test_the_scheduler_s_file_decides(tmp_path):
    (tmp_path / "scheduler").mkdir()
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"steps_offset": 0, "prediction_type": "v_prediction"}))
    spec = spec_for("sd15", tmp_path)
    assert (spec.steps_offset, spec.prediction_type) == (0, "v_prediction")
    path.write_text(json.dumps({"set_alpha_to_one": True}))
    with pytest.raises(ModelSetError, match="set_alpha_to_one is True"):
        spec_for("sd15", tmp_path)


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "sd2-inpainting"
    write_small_set("sd2-inpainting", folder)
    return folder


def test_a_set_with_an_inpainting_unet_alone_does_what_it_can(inpainting):
    models = open_model_set(str(inpainting))
    networks = load_networks(models.folder, models.spec, "cpu")
    assert "inpainting.sample" in OperationHost(networks).describe()["operations"]
    with pytest.raises(ModelSetError, match="inpainting UNet alone: take sd15"):
        _ = models.style_diffusion
    with pytest.raises(ModelSetError, match="inpainting UNet alone"):
        networks.unet(None, None, None)
    with pytest.raises(ModelSetError, match="no image encoder"):
        networks.image(None)


def test_a_fetched_set_is_found_and_listed_by_name(inpainting, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(inpainting.parent))
    assert open_model_set("sd2-inpainting").folder == inpainting.resolve()
    assert [one.name for one in list_model_sets()] == ["scenes", "sd2-inpainting"]


def test_networks_that_are_not_the_released_ones_are_told_apart(inpainting):
    """Small networks under a released name: they fit their configs, not the name."""
    with pytest.raises(ModelSetError, match=r"\(clip-b16\)|\(dino-b8\)|\(sd2-|\(sd-vae\)"):
        check_networks(open_model_set(str(inpainting)))


def test_every_part_of_a_released_set_has_an_architecture():
    parts = released_parts("sd15+regions+infinity-2b")
    assert parts == {
        "unet": "sd1-unet",
        "vae": "sd-vae",
        "text_encoder": "sd1-text",
        "safety_checker": "sd-safety",
        "image_encoder": "clip-b16-vision",
        "inpainting": "sd1-inpainting-unet",
        "dino": "dino-b8",
        "scorer": "clip-b16",
        "t5": "flan-t5-xl-encoder",
        "infinity": "infinity-2b",
        "bsq_vae": "bsq-d32",
    }


def test_the_embedded_set_is_checked_too():
    found = {part.part: part for part in check_networks(open_model_set("scenes"))}
    assert {"unet", "vae", "clip", "inpainting"} <= found.keys()
    assert all(part.unused == 0 and not part.released for part in found.values())
