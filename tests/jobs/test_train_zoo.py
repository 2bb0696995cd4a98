"""`editfarm zoo train` hands its workers paths that mean the same where they stand, and says what
its first minutes go into."""

from contextlib import nullcontext

import torch
from typer.testing import CliRunner

from farm.zoo.recipes.pool_files import cached_tensors
from jobs import train_zoo


def test_relative_folders_are_the_caller_s_on_every_worker(tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(here)
    stood = []

    def on_workers(build, *, workers):
        with monkeypatch.context() as moved:
            moved.chdir(elsewhere)
            training = build()
            training.save()
        stood.append((workers, training.folder))

    monkeypatch.setattr(train_zoo, "train_on_workers", on_workers)
    monkeypatch.setattr(train_zoo, "local_ray", nullcontext)
    ran = CliRunner().invoke(
        train_zoo.app, ["vae", "--workers", "2", "--steps", "1", "--out", "state"]
    )
    assert ran.exit_code == 0, ran.output
    assert stood == [(2, here / "state")]
    assert (here / "state" / "vae.training.safetensors").is_file()
    assert (here / "state" / "export" / "vae" / "config.json").is_file()
    assert list(elsewhere.iterdir()) == []


def test_pictures_that_are_being_encoded_are_told_of(tmp_path):
    notes = []

    def make(tell):
        tell(1024, 20_000)
        notes.append(train_zoo.encoding_note(tmp_path))
        return {"x": torch.zeros(1)}

    cached_tensors(tmp_path / "holes-0f.safetensors", make)
    notes.append(train_zoo.encoding_note(tmp_path))
    assert notes == ["encoding pictures (holes): 1,024 of 20,000", ""]
