"""One AnchorNet for many images, from the command line to an edit that starts from it."""

import json

import pytest
from typer.testing import CliRunner

from jobs import edit, train_anchornet
from jobs.train_anchornet import app
from tests.jobs.conftest import write_picture
from tests.tiny_regions import write_tiny_region_set

QUICK = {
    "point_number": 2,
    "min_window_size": 1,
    "max_window_size": 2,
    "window_step": 1,
    "preview_steps": 1,
}


@pytest.fixture(scope="module")
def region_set(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("regions-set")
    write_tiny_region_set(folder)
    return str(folder)


@pytest.fixture
def train(region_set, tmp_path):
    lines = [
        {
            "image": write_picture(tmp_path / f"{n}.png", seed=n).name,
            "source_prompt": "a red ball",
            "target_prompt": f"a {colour} ball",
        }
        for n, colour in enumerate(("blue", "green", "yellow"))
    ]
    manifest = tmp_path / "edits.jsonl"
    manifest.write_text("\n".join(json.dumps(line) for line in lines))

    def train(*options: str):
        arguments = [
            *("--manifest", str(manifest), "--model-set", region_set, "--inline"),
            *("--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")),
            *(f"--param={name}={value}" for name, value in QUICK.items()),
            *("--batch-size", "2", *options),
        ]
        return CliRunner().invoke(app, arguments)

    return train


def test_a_trained_anchornet_saves_an_edit_its_table(train, region_set, tmp_path):
    result = train("--steps", "4")
    assert result.exit_code == 0, result.output
    path = tmp_path / "out" / "anchornet.safetensors"
    quick = QUICK | {"num_steps": 2, "finalists": 1}

    def previews(*options: str) -> float:
        arguments = [
            *("--image", str(tmp_path / "0.png"), "--source", "a red ball"),
            *("--target", "a white ball", "--method", "learnable_regions", "--inline", "--json"),
            *("--model-set", region_set, "--store", str(tmp_path / "store")),
            *(f"--param={name}={value}" for name, value in quick.items()),
            *options,
        ]
        edited = CliRunner().invoke(edit.app, arguments)
        assert edited.exit_code == 0, edited.output
        files = json.loads(edited.stdout)["files"]
        return json.loads((tmp_path / "store" / files["metrics.json"]).read_text())["previews"]

    assert previews() == 4  # two anchors in two sizes
    assert previews(f"--param=anchornet={path}", "--param=train=false") == 2


def test_more_steps_go_on_from_the_checkpoint(train, tmp_path):
    assert train("--steps", "3").exit_code == 0
    again = train("--steps", "5")
    assert again.exit_code == 0, again.output
    assert "5 steps" in again.output
    curve = (tmp_path / "out" / "anchornet.curve.jsonl").read_text()
    assert [json.loads(line)["step"] for line in curve.splitlines()][-1] == 5


def test_a_relative_folder_is_the_caller_s_on_every_worker(train, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)

    def on_workers(_, build, workers):
        assert workers == 2
        with monkeypatch.context() as moved:
            moved.chdir(elsewhere)
            build().save()

    monkeypatch.setattr(train_anchornet, "train_elsewhere", on_workers)
    result = train("--steps", "1", "--workers", "2", "--out", "mine")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "mine" / "anchornet.training.safetensors").is_file()
    assert list(elsewhere.iterdir()) == []


def test_what_cannot_be_is_refused(train):
    result = train("--steps", "1", "--param", "point_number=0")
    assert result.exit_code == 2
    assert "point_number" in result.output
