import json

import pytest
import torch
from safetensors.torch import save_file

from actors.sharing import loaded_bytes, weight_bytes
from farm.backbones.loaded_sizes import loaded_sizes
from farm.backbones.networks import load_networks
from farm.backbones.precision import Precision
from farm.errors import ModelSetError
from farm.zoo.model_sets import open_model_set


def save(path, numbers, dtype=torch.float16):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"w{number}": torch.zeros(number, dtype=dtype) for number in numbers}, path)


@pytest.fixture
def halves(tmp_path):
    """A set whose files are all in half precision, with a folder that holds no weights."""
    for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "model"), ("t5", "model")):
        save(tmp_path / part / f"{stem}.fp16.safetensors", (10, 6))
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/vocab.json").write_text("{}")
    return tmp_path


def test_what_counts_is_the_precision_that_is_computed_in(halves):
    assert loaded_sizes(halves, "cpu") == {"unet": 64, "vae": 64, "t5": 64}
    assert loaded_sizes(halves, "cuda") == {"unet": 32, "vae": 64, "t5": 32}
    single = Precision(torch.float32)
    assert loaded_sizes(halves, "cuda", single) == {"unet": 64, "vae": 64, "t5": 32}


def test_the_precision_is_the_one_that_is_asked_for(halves, monkeypatch):
    monkeypatch.setenv("EDITFARM_PRECISION", "fp32")
    assert loaded_sizes(halves, "cuda")["unet"] == 64


def test_of_variants_only_what_is_loaded_counts(halves):
    save(halves / "unet/diffusion_pytorch_model.safetensors", (10, 7), torch.float32)
    save(halves / "unet/diffusion_pytorch_model.non_ema.safetensors", (100,), torch.float32)
    assert loaded_sizes(halves, "cpu")["unet"] == 4 * 17


def test_shards_count_together(tmp_path):
    part = tmp_path / "infinity"
    save(part / "model-00001-of-00002.safetensors", (3,))
    save(part / "model-00002-of-00002.safetensors", (4, 5))
    places = {f"w{n}": f"model-0000{1 + (n > 3)}-of-00002.safetensors" for n in (3, 4, 5)}
    index = part / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert loaded_sizes(tmp_path, "cuda") == {"infinity": 2 * 12}
    index.write_text("{}")
    with pytest.raises(ModelSetError, match="weight_map"):
        loaded_sizes(tmp_path, "cuda")
    index.unlink()
    assert loaded_sizes(tmp_path, "cuda") == {"infinity": 2 * 12}


def test_a_pickle_counts_as_its_file(tmp_path):
    (tmp_path / "infinity").mkdir()
    torch.save({"w": torch.zeros(1000)}, tmp_path / "infinity/infinity_2b.pth")
    size = (tmp_path / "infinity/infinity_2b.pth").stat().st_size
    assert loaded_sizes(tmp_path, "cpu") == {"infinity": pytest.approx(size, abs=4)}


def test_a_broken_file_is_named(halves):
    broken = halves / "vae/model.fp16.safetensors"
    broken.write_bytes(broken.read_bytes()[:20])
    with pytest.raises(ModelSetError, match=r"vae/model\.fp16"):
        loaded_sizes(halves, "cpu")


def test_they_are_what_loading_takes():
    """All parameters of the scenes set, which is kept in half precision."""
    models = open_model_set("scenes")
    sizes = loaded_sizes(models.folder, "cpu")
    loaded = load_networks(models.folder, models.spec, "cpu")
    for part, network in (("unet", loaded.unet), ("vae", loaded.vae)):
        assert sizes[part] == sum(p.nbytes for p in network.parameters()), part
    assert weight_bytes(models) < 0.6 * loaded_bytes(models, "cpu")
