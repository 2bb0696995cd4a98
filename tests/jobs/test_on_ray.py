"""The same job through Ray: a backbone actor, and trainers in processes of their own."""

import json
import os

import pytest
from typer.testing import CliRunner

from jobs.edit_many import app

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_edits_run_in_trainers_against_one_backbone(tiny_set, manifest, tmp_path):
    path = manifest(
        {"id": "blue"},
        {"id": "green", "target_prompt": "a green ball"},
        {"id": "seed", "seed": 1},
        "{broken",
    )
    where = ["--manifest", path, "--output", str(tmp_path / "store"), "--model-set", tiny_set]
    result = CliRunner().invoke(app, [*where, "--max-in-flight", "2", "--json"])
    assert result.exit_code == 1, result.stderr
    found = {o["name"]: o for o in map(json.loads, result.stdout.splitlines())}
    assert found.pop("line-4")["kind"] == "InvalidManifestError"
    assert found.keys() == {"blue", "green", "seed"}
    provenance = {name: o["result"]["provenance"] for name, o in found.items()}
    (backbone,) = {pid for p in provenance.values() for pid in p["backbone_pids"]}
    trainers = {p["trainer_pid"] for p in provenance.values()}
    assert not trainers & {backbone, os.getpid()}
    assert backbone != os.getpid()
    assert [provenance[name]["stages_made"] for name in ("blue", "green")].count([]) == 1
    (job,) = (tmp_path / "store" / "tenants" / "default" / "jobs").iterdir()
    (described,) = json.loads((job / "summary.json").read_text())["backbones"]
    assert described["pid"] == backbone
    assert described["parameters"].keys() == {"unet", "vae", "text", "image"}
