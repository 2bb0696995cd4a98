import json
import shutil

import pytest
from typer.testing import CliRunner

from jobs.doctor import app, examine, ray_access


def findings(store, *model_sets, environment=None):
    found = examine(str(store), list(model_sets), environment or {})
    return {finding.check: finding for finding in found}


def test_a_good_machine_has_no_failure(tmp_path, tiny_set):
    found = findings(tmp_path / "store", tiny_set)
    assert {"python", "packages", "processors", "memory", "shared memory"} < found.keys()
    assert {"accelerator", "disk", "session folder", "limits", "ports"} < found.keys()
    assert found["placement"].found.startswith(tiny_set)
    assert found["store"].level == "ok"
    assert "conditional puts" in found["store"].found
    assert found[f"model set {tiny_set}"].found.startswith("3 weight files")
    assert found["packages"].level == "ok"


def test_a_broken_model_set_and_store_fail_with_advice(tmp_path, tiny_set):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_set, broken)
    with next(broken.rglob("*.safetensors")).open("ab") as file:
        file.write(b"\0")
    (tmp_path / "file").write_text("")
    found = findings(tmp_path / "file" / "store", str(broken), "absent")
    assert found[f"model set {broken}"].level == "fail"
    assert "has digest" in found[f"model set {broken}"].advice
    assert found["model set absent"].level == "fail"
    assert found["store"].level == "fail"
    assert found["store"].advice


@pytest.mark.parametrize(
    ("environment", "level", "says"),
    [
        ({}, "ok", "random token"),
        ({"RAY_AUTH_MODE": "disabled"}, "warn", "without authentication"),
        ({"RAY_AUTH_MODE": "token"}, "ok", "with a token"),
        ({"RAY_AUTH_MODE": "tokn"}, "fail", "RAY_AUTH_MODE=tokn"),
        ({"RAY_ADDRESS": "auto"}, "warn", "RAY_AUTH_MODE is not set"),
        ({"RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "token"}, "fail", "joins auto"),
        (
            {"RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"},
            "ok",
            "joins auto, with a token",
        ),
    ],
)
def test_ray_access(tmp_path, environment, level, says):
    finding = ray_access({"HOME": str(tmp_path)} | environment)
    assert finding.level == level
    assert says in finding.found
    assert finding.advice or level == "ok"


def test_ray_access_finds_the_token_file(tmp_path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    environment = {"HOME": str(tmp_path), "RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "token"}
    assert ray_access(environment).level == "ok"


def test_a_warning_is_a_failure_only_where_it_was_asked_to_be(tmp_path, tiny_set, monkeypatch):
    good = ["--model-set", tiny_set, "--store", str(tmp_path / "store")]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a warning
    assert CliRunner().invoke(app, good).exit_code == 0
    assert CliRunner().invoke(app, [*good, "--strict"]).exit_code == 1


def test_json_lines_and_exit_code(tmp_path, tiny_set):
    good = ["--model-set", tiny_set, "--store", str(tmp_path / "store")]
    assert CliRunner().invoke(app, good).exit_code == 0
    result = CliRunner().invoke(app, ["--model-set", "absent", *good, "--json"])
    assert result.exit_code == 3
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    failed = [line["check"] for line in lines if line["level"] == "fail"]
    assert failed == ["model set absent"]
    assert result.stderr.startswith("error: model set absent: ")
