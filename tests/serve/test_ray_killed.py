"""Ray itself is killed under `editfarm serve`, and started again on the same store."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.serve.conftest import PICTURE, WORDS
from tests.serve.served import free_port, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(1800)]

_EDITS = 5
_LONG = '{"num_steps": 5, "inner_steps": 8}'


@contextlib.contextmanager
def editfarm_serve(store, model_set):
    """The command as a laptop's user starts it, and its client; killed with all that it started."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    arguments = ["--store", store, "--model-set", model_set, "--port", port]
    arguments += ["--max-in-flight", 1, "--no-studio"]
    said = folder / "said"
    with said.open("wb") as log:
        farm = subprocess.Popen(
            [sys.executable, "-m", "jobs.serve_command", *map(str, arguments)],
            env={**os.environ, "RAY_TMPDIR": str(folder)},
            stdout=log,
            stderr=log,
        )

    def ready(client):
        assert farm.poll() is None, said.read_text(errors="replace")
        return client.get("/readyz").status_code == 200

    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: ready(client), 600)
            yield client
    finally:
        kill_tree(farm.pid)
        farm.wait()
        shutil.rmtree(folder, ignore_errors=True)


def kill_tree(root):
    """End a process and all below it at one blow: nobody cleans anything up."""
    process = psutil.Process(root)
    everybody = [process, *process.children(recursive=True)]
    titles = " ".join(child.name() for child in everybody)
    assert "raylet" in titles, titles
    assert "gcs_server" in titles, titles
    for one in everybody:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(everybody[1:], timeout=30)


def submit(client, seed):
    response = client.post(
        "/v1/edits",
        data={**WORDS, "parameters": _LONG, "seed": str(seed)},
        files={"image": ("a.png", PICTURE, "image/png")},
    )
    assert response.status_code == 202, response.text
    return response.json()["id"]


def states(client, names):
    return [client.get(f"/v1/edits/{name}").json()["state"] for name in names]


def commits(store):
    """Which attempt each edit was committed with."""
    found = (store / "tenants/default/edits").glob("*/COMMIT.json")
    return {path.parent.name: path.read_bytes() for path in found}


def test_accepted_edits_outlive_a_killed_ray(tiny_set, tmp_path):
    store = tmp_path / "store"
    with editfarm_serve(store, tiny_set) as client:
        names = [submit(client, seed) for seed in range(_EDITS)]
        wait_until(lambda: {"done", "running"} <= set(states(client, names)))
        before = states(client, names)
        assert {"queued", "running", "done"} == set(before), before
    early = commits(store)
    assert 0 < len(early) < _EDITS
    with editfarm_serve(store, tiny_set) as client:
        wait_until(lambda: set(states(client, names)) == {"done"}, 600)
        ids = [client.get(f"/v1/edits/{name}").json()["edit_id"] for name in names]
        for name in names:
            assert client.get(f"/v1/edits/{name}/outputs/edited.png").status_code == 200
    late = commits(store)
    assert set(late) == set(ids)
    assert len(set(ids)) == _EDITS
    assert {name: late[name] for name in early} == early  # what was committed is not done again
    assert not list((store / "online/pending").rglob("e*"))  # nothing is left to do
