import hashlib
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from farm.errors import ModelSetError
from farm.metrics import weights
from farm.metrics.weights import PUBLISHED, load_clip, load_dino, load_lpips, load_vit_keys, require
from tests.farm.metrics.networks import picture, squeeze_state, tiny_vit


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(ModelSetError) as raised:
        require(tmp_path, PUBLISHED)
    message = raised.value.message
    for network in PUBLISHED.values():
        assert network.source in message
        for file in network.files:
            assert f"{file} is missing" in message
    require(tmp_path, [])


@pytest.mark.parametrize("load", [load_dino, load_clip])
def test_no_loader_goes_on_without_weights(load, tmp_path):
    with pytest.raises(ModelSetError, match="is missing"):
        load(tmp_path)


def test_a_damaged_file_is_told_from_its_name(tmp_path):
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"half")
    with pytest.raises(ModelSetError, match=r"alexnet-owt-7be5be79\.pth has digest .*not its name"):
        load_lpips(tmp_path, "alex")


def test_lpips_takes_torchvisions_file_and_fetches_nothing(tmp_path, monkeypatch):
    state = squeeze_state()
    torch.save(state, tmp_path / "raw")
    digest = hashlib.sha256((tmp_path / "raw").read_bytes()).hexdigest()
    path = (tmp_path / "raw").rename(tmp_path / f"squeezenet1_1-{digest[:8]}.pth")
    real = weights._TRUNKS["squeeze"]
    fake = SimpleNamespace(
        url=f"nowhere/{path.name}", name=real.name, get_state_dict=_loader_of(path)
    )
    monkeypatch.setattr(weights, "_TRUNKS", {"squeeze": fake})
    monkeypatch.setattr(weights, "PUBLISHED", weights._published())
    distance = load_lpips(tmp_path, "squeeze")
    assert distance.name == "lpips-squeeze"
    features = dict(distance.network.net.named_parameters())
    assert torch.equal(features["slice1.0.weight"], state["features.0.weight"])
    image = picture(1, 3, 64, 64)
    assert distance(image, 1 - image).item() > 0


def _loader_of(path):
    """torchvision's own, for a file that is there; `model_dir` is where it looks."""

    def get_state_dict(*, model_dir, map_location, weights_only, progress):
        return torch.hub.load_state_dict_from_url(
            f"nowhere/{path.name}",
            model_dir=model_dir,
            map_location=map_location,
            weights_only=weights_only,
            progress=progress,
        )

    return get_state_dict


def test_keys_of_a_vit_from_a_file(tmp_path):
    vit = tiny_vit()
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    keys = load_vit_keys(tiny_vit(seed=1), tmp_path / "model.safetensors", name="tiny", size=16)
    assert torch.equal(keys.trunk.pos_embed, vit.pos_embed)
    (tmp_path / "broken").write_bytes(b"no")
    with pytest.raises(ModelSetError, match="cannot be loaded as tiny"):
        load_vit_keys(tiny_vit(), tmp_path / "broken", name="tiny", size=16)
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ModelSetError, match="cannot be loaded as tiny"):
        load_vit_keys(tiny_vit(), tmp_path / "other", name="tiny", size=16)
