"""`editfarm models pull` against a hub in a folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks.gpu.small import SMALL
from benchmarks.gpu.weights import random_state
from farm.backbones.networks import load_networks
from farm.errors import ModelSetError, UnavailableError
from farm.zoo.model_sets import MODELS_VARIABLE, open_model_set
from jobs import model_pull
from jobs.model_pull import pull
from jobs.models import app
from tests.jobs.small_hub import REVISION, pickle_weights, small, write_hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    write_hub(folder)
    return folder


class Hub:
    """Fetches from the folder what the patterns name, and remembers what was asked.

    Repositories that are `gone` do not answer; files that are `lacking` are in no repository.
    """

    def __init__(self, folder, cache, gone=(), lacking=()):
        self.folder, self.cache, self.gone, self.lacking = folder, cache, gone, lacking
        self.asked = []

    def __call__(self, repository, revision, patterns):
        self.asked.append(repository)
        source = self.folder / repository / REVISION
        if repository in self.gone or not source.is_dir():
            raise ModelSetError(f"{repository} is not on the hub")
        target = self.cache / repository / REVISION
        target.mkdir(parents=True, exist_ok=True)
        for path in source.rglob("*"):
            name = path.relative_to(source)
            if str(name) in self.lacking:
                continue
            if path.is_file() and any(name.match(p) and _deep(name, p) for p in patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)
        return target


def _deep(name, pattern):
    return len(name.parts) == len(Path(pattern).parts)


@pytest.mark.parametrize("variant", ["full", "fp16"])
def test_a_set_is_put_together_and_loads(hub, tmp_path, variant):
    fetch = Hub(hub, tmp_path / "cache")
    pull("sd15", tmp_path / "sd15", variant=variant, fetch=fetch)
    found = small(tmp_path / "sd15")
    found.verify()
    names = {name.rsplit("/", maxsplit=1)[-1] for name in found.digests if name.startswith("unet")}
    middle = ".fp16" if variant == "fp16" else ""
    assert names == {f"diffusion_pytorch_model{middle}.safetensors"}
    tokenizer = {path.name for path in (found.folder / "tokenizer").iterdir()}
    assert tokenizer == {"tokenizer.json", "special_tokens_map.json"}, "the map names the padding"
    source = found.manifest.sources["unet"]
    assert source.revision == REVISION
    assert source.licence == "CreativeML OpenRAIL-M"
    networks = load_networks(found.folder, found.spec, "cpu")
    assert networks.safety is not None, "the checker is kept"
    assert {"text_encoder", "image_encoder"} <= {
        name.split("/")[0] for name in found.digests_of(("unet", "vae", "clip"))
    }


def test_half_precision_goes_before_a_pickle(hub, tmp_path, capsys):
    """Stable Diffusion 1.5's inpainting UNet has no safetensors in full precision."""
    pull("sd15+regions", tmp_path / "both", fetch=Hub(hub, tmp_path / "cache"))
    said = " ".join(capsys.readouterr().err.split())
    repository = "stable-diffusion-v1-5/stable-diffusion-inpainting"
    assert f"{repository} has no safetensors of unet in full precision" in said
    assert said.count("taking those in half precision") == 1, (
        "all others are there in full precision"
    )
    found = small(tmp_path / "both")
    found.verify()
    assert "inpainting/diffusion_pytorch_model.fp16.safetensors" in found.digests
    assert "unet/diffusion_pytorch_model.safetensors" in found.digests
    assert found.manifest.sources["inpainting"].repository == repository
    networks = load_networks(found.folder, found.spec, "cpu")
    assert networks.regions is not None


def test_precision_is_that_of_each_network(hub, tmp_path):
    fetch = Hub(
        hub,
        tmp_path / "cache",
        lacking=(
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.fp16.safetensors",
        ),
    )
    full = pull("sd15", tmp_path / "full", fetch=fetch).digests
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in full
    assert "vae/diffusion_pytorch_model.safetensors" in full
    shutil.rmtree(tmp_path / "cache")
    half = pull("sd15", tmp_path / "half", variant="fp16", fetch=fetch).digests
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in half
    assert "vae/diffusion_pytorch_model.safetensors" in half


def test_a_pickle_of_diffusers_is_taken_where_there_is_nothing_else(hub, tmp_path, capsys):
    lacking = ("unet/diffusion_pytorch_model.fp16.safetensors",)
    shutil.copytree(hub, tmp_path / "hub")
    sd15 = tmp_path / "hub" / "stable-diffusion-v1-5" / "stable-diffusion-v1-5" / REVISION
    for part in ("text_encoder", "safety_checker"):  # as transformers pickles its networks
        (sd15 / part / "model.fp16.safetensors").unlink()
        pickle_weights(sd15 / part / "model.safetensors", "pytorch_model")
    fetch = Hub(tmp_path / "hub", tmp_path / "cache", lacking=lacking)
    pull("sd15+regions", tmp_path / "both", fetch=fetch)
    assert "half precision" not in capsys.readouterr().err
    found = small(tmp_path / "both")
    assert "inpainting/model.safetensors" in found.digests
    networks = load_networks(found.folder, found.spec, "cpu")
    assert networks.regions is not None
    pickled = load_file(found.folder / "inpainting" / "model.safetensors")
    released = random_state(SMALL["sd1-inpainting-unet"], torch.float32)
    assert pickled.keys() == released.keys()
    assert all(torch.equal(pickled[name], released[name]) for name in released)


def test_a_network_without_weights_is_refused(hub, tmp_path):
    lacking = [
        f"unet/diffusion_pytorch_model{ending}"
        for ending in (".bin", ".safetensors", ".fp16.safetensors")
    ]
    fetch = Hub(hub, tmp_path / "cache", lacking=lacking)
    with pytest.raises(ModelSetError, match="neither safetensors nor one pickle"):
        pull("sd15", tmp_path / "x", fetch=fetch)


def test_the_safety_checker_is_left_out_where_somebody_asks(hub, tmp_path):
    found = pull("sd15", tmp_path / "x", safety_checker=False, fetch=Hub(hub, tmp_path / "cache"))
    assert not found.spec.safety
    assert not (found.folder / "safety_checker").exists()
    assert load_networks(found.folder, small(found.folder).spec, "cpu").safety is None


def test_an_infinity_is_converted_and_stated(hub, tmp_path):
    fetch = Hub(hub, tmp_path / "cache")
    found = pull("sd15+infinity-2b", tmp_path / "both", fetch=fetch)
    assert found.spec.infinity is not None
    assert found.spec.infinity.size == "1M"
    assert found.text_tokenizer.encode("a cat").length == 3
    networks = load_networks(found.folder, small(found.folder).spec, "cpu")
    assert {"infinity", "bsq_vae", "t5"} <= networks.modules().keys()
    again = len(fetch.asked)
    shutil.rmtree(found.folder / "unet")
    (found.folder / "model_set.json").unlink()
    pull("sd15+infinity-2b", tmp_path / "both", fetch=fetch)  # an interrupted pull goes on
    assert len(fetch.asked) >= again
    open_model_set(str(tmp_path / "both")).verify()


def test_the_next_address_is_tried_and_all_that_failed_are_said(hub, tmp_path):
    sd15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    fetch = Hub(hub, tmp_path / "cache", gone=(sd15,))
    with pytest.raises(UnavailableError, match="runwayml/stable-diffusion-v1-5 is not on the hub"):
        pull("sd15", tmp_path / "x", fetch=fetch)
    assert fetch.asked == [sd15, "runwayml/stable-diffusion-v1-5"]
    assert not (tmp_path / "x" / "model_set.json").exists()


def test_offline_says_so_and_how_to_go_on(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(model_pull, "snapshot_download", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = CliRunner().invoke(app, ["pull", "sd14", "--to", str(tmp_path)])
    assert done.exit_code == 3
    said = " ".join(done.output.split())
    assert "CompVis/stable-diffusion-v1-4 is not in the hub's cache, and HF_HUB_OFFLINE" in said


def test_the_command_line_pulls_lists_and_checks(hub, tmp_path, monkeypatch):
    fetch = Hub(hub, tmp_path / "cache")
    monkeypatch.setattr(
        model_pull,
        "snapshot_download",
        lambda r, revision, allow_patterns: fetch(r, revision, allow_patterns),
    )
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "models"))
    runner = CliRunner()
    done = runner.invoke(app, ["pull", "sd15"])
    assert done.exit_code == 0, done.output
    again = runner.invoke(app, ["pull", "sd15"])
    assert "is there, all digests match" in again.output
    listed = [
        json.loads(line)
        for line in runner.invoke(app, ["list", "--json"]).stdout.split("\n")
        if line
    ]
    assert {"scenes", "sd15"} <= {one.get("name") for one in listed}
    table = {one["checkpoint"]: one for one in listed if "checkpoint" in one}
    assert table["infinity-2b"]["licence"] == "MIT"
    assert table["sd15"]["revision"] is None
    checked = runner.invoke(app, ["check", "--model-set", "sd15", "--json"])
    assert checked.exit_code == 2, "small networks are not what was released"
    assert "sd1-" in checked.output or "clip-b16" in checked.output or "sd-" in checked.output


def test_an_unknown_name_is_refused_before_anything_is_fetched(tmp_path):
    done = CliRunner().invoke(app, ["pull", "sdxl", "--to", str(tmp_path)])
    assert done.exit_code == 2
    assert "no released model set 'sdxl'" in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []
