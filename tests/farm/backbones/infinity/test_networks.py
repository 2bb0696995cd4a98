import pytest
import torch
from safetensors.torch import save_file

from farm.backbones.infinity.networks import VAE, load_infinity_networks
from farm.errors import ModelSetError
from tests.tiny_infinity import SPEC, picture, tiny_networks, write_tiny_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("set")
    write_tiny_set(path)
    return path


def test_a_folder_gives_the_networks_that_were_written(folder):
    found = load_infinity_networks(folder, SPEC, "cpu")
    expected = tiny_networks()
    with torch.no_grad():
        image = picture()[None]
        assert torch.equal(found.vae.encode(image), expected.vae.encode(image))
        ids = torch.tensor([[3, 4, 1]])
        assert torch.equal(found.text(ids), expected.text(ids))
    assert set(found.modules()) == {"infinity", "bsq_vae", "t5"}
    assert not any(p.requires_grad for m in found.modules().values() for p in m.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [("depth", 3), ("hidden", 64), ("text_rows", 512), ("stride", 8), ("patchify", True)],
)
def test_a_spec_of_other_networks_is_refused(folder, field, value):
    fields = SPEC.model_dump() | {field: value}
    with pytest.raises(ModelSetError, match=f"{field} is"):
        load_infinity_networks(folder, type(SPEC)(**fields), "cpu")


def test_more_scales_than_the_model_knows_are_refused(folder):
    many = ((1, 1), *[(4, 4)] * 15)
    spec = type(SPEC)(**SPEC.model_dump() | {"grids": many})
    with pytest.raises(ModelSetError, match="16 scales, the transformer knows 15"):
        load_infinity_networks(folder, spec, "cpu")


def test_missing_parts_are_named(tmp_path):
    write_tiny_set(tmp_path)
    (tmp_path / "t5" / "config.json").unlink()
    with pytest.raises(ModelSetError, match=r"t5/config\.json is missing"):
        load_infinity_networks(tmp_path, SPEC, "cpu")
    (tmp_path / VAE / "model.safetensors").unlink()
    save_file({"w": torch.ones(1)}, tmp_path / VAE / "other.safetensors")
    with pytest.raises(ModelSetError, match="no BSQ autoencoder"):
        load_infinity_networks(tmp_path, SPEC, "cpu")
