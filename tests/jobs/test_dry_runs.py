"""What costs says first what it would do, and then has done nothing."""

import pytest
from typer.testing import CliRunner

from jobs import model_pull
from jobs.cli import app
from jobs.train_zoo import last_step


@pytest.fixture
def dry(tmp_path, monkeypatch):
    monkeypatch.setattr(model_pull, "snapshot_download", lambda *_, **__: pytest.fail("asked"))

    def dry(*arguments):
        ran = CliRunner().invoke(app, [*map(str, arguments), "--dry-run"], prog_name="editfarm")
        assert ran.exit_code == 0, ran.output
        assert list(tmp_path.iterdir()) == []
        return " ".join(ran.output.split())

    return dry


def test_a_pull_says_what_it_would_fetch(dry, tmp_path):
    said = dry("models", "pull", "sd15+regions", "--to", tmp_path)
    # 859.5 + 83.7 + 123.1 + 304.0 million numbers of four bytes
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5: 5.5 GB" in said
    assert "timm/vit_base_patch8_224.dino: 0.3 GB" in said
    assert f"into {tmp_path / 'sd15+regions'}" in said


def test_an_evaluation_says_how_many_edits_there_are(dry, tmp_path):
    said = dry("evaluate", "--edits", 2, "--arm", "plain:learned=nothing", "--store", tmp_path)
    assert "default style_diffusion 2 0" in said
    assert "plain style_diffusion 2 0" in said


def test_a_training_says_how_far_it_is(dry, tmp_path):
    assert "vae: 7 steps of 7" in dry("zoo", "train", "vae", "--steps", 7, "--out", tmp_path)


def test_the_last_step_of_a_curve(tmp_path):
    curve = tmp_path / "vae.curve.jsonl"
    assert last_step(curve) == 0
    curve.write_text("")
    assert last_step(curve) == 0
    curve.write_text('{"step": 50, "loss": 1}\n{"step": 100, "loss": 0.5}\n')
    assert last_step(curve) == 100
