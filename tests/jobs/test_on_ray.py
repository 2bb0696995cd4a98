"""The same commands through Ray: a backbone actor, and trainers in processes of their own."""

import json
import os

import pytest
from typer.testing import CliRunner

from farm.images import decode_image
from farm.runner import load_output, load_result, load_stage
from farm.storage.opening import open_store
from jobs import edit
from jobs.edit_many import app
from tests.farm.storage.servers import BUCKET, WireToMoto, running_with_bucket
from tests.jobs.conftest import LINE, QUICK

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


def test_an_edit_into_s3_is_there_for_whoever_reads_it(tiny_set, picture, tmp_path):
    wire = WireToMoto()
    with running_with_bucket(wire) as endpoint:
        uri = f"s3://{BUCKET}/edits?endpoint_url={endpoint}&region=us-east-1"
        output = tmp_path / "blue.png"
        arguments = [
            *("--image", str(picture), "--model-set", tiny_set, "--store", uri, "--json"),
            *("--source", LINE["source_prompt"], "--target", LINE["target_prompt"]),
            *(f"--param={name}={value}" for name, value in QUICK.items()),
        ]
        first = CliRunner().invoke(edit.app, [*arguments, "--output", str(output)])
        assert first.exit_code == 0, first.stderr
        said = json.loads(first.stdout)
        assert said["provenance"]["trainer_pid"] != os.getpid()
        assert said["provenance"]["trainer_pid"] not in said["provenance"]["backbone_pids"]

        store = open_store(uri)
        result = load_result(store, "default", said["edit_id"])
        assert result is not None
        stored = load_output(store, result, "edited.png")
        assert stored == output.read_bytes()
        assert decode_image(stored).image.shape == (3, 20, 20)
        assert load_stage(store, "default", result.provenance.stages["inversion"])
        commits = [key for key in store.list("tenants/") if key.endswith("COMMIT.json")]
        assert len(commits) == 2  # the inversion and the edit

        again = CliRunner().invoke(edit.app, arguments)
        assert again.exit_code == 0, again.stderr
        assert "this edit is in the store already" in again.stderr
        assert json.loads(again.stdout)["attempt"] == said["attempt"]
