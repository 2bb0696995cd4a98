"""`editfarm serve` and `editfarm keys`, without starting anything."""

import json

import pytest
from typer.testing import CliRunner

from jobs.keys import app as keys_app
from jobs.serve_command import app as serve_app
from serve.keys import KeyRing


def run(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_key_is_made_listed_and_taken_back(tmp_path):
    path = tmp_path / "keys.json"
    made = run(keys_app, "add", "acme", "--file", path, "--note", "build server")
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert KeyRing(path).tenant_of(key) == "acme"
    (listed,) = run(keys_app, "list", "--file", path, "--json").stdout.splitlines()
    about = json.loads(listed)
    assert (about["tenant"], about["note"]) == ("acme", "build server")
    assert key not in listed
    assert run(keys_app, "revoke", about["key"], "--file", path).exit_code == 0
    assert KeyRing(path).tenant_of(key) is None
    assert run(keys_app, "revoke", about["key"], "--file", path).exit_code == 2


@pytest.mark.parametrize("tenant", ["Acme", "a/b", "..", "", "a" * 64, "-a"])
def test_a_tenants_name_is_a_plain_word(tmp_path, tenant):
    made = run(keys_app, "add", "--file", tmp_path / "keys.json", "--", tenant)
    assert made.exit_code == 2
    assert not (tmp_path / "keys.json").exists()


def test_a_second_key_of_a_tenant_leaves_the_first(tmp_path):
    path = tmp_path / "keys.json"
    first, second = (run(keys_app, "add", "acme", "--file", path).stdout.strip() for _ in range(2))
    ring = KeyRing(path)
    assert ring.tenant_of(first) == ring.tenant_of(second) == "acme"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::"])
def test_serving_others_without_keys_is_refused_before_anything_starts(tmp_path, host):
    ran = run(serve_app, "--host", host, "--store", tmp_path / "store")
    assert ran.exit_code == 2
    assert "keys" in ran.stderr
    assert not (tmp_path / "store").exists()


def test_a_studio_without_gradio_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("serve.studio.deployment.has_gradio", lambda: False)
    ran = run(serve_app, "--studio", "--store", tmp_path / "store")
    assert ran.exit_code == 2
    assert "editfarm[ui]" in ran.stderr
    assert not (tmp_path / "store").exists()


def test_a_keys_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "keys.json").write_text("{}x")
    ran = run(serve_app, "--host", "0.0.0.0", "--keys", tmp_path / "keys.json")
    assert ran.exit_code == 2
