"""Starting a Ray of our own, joining another, and stopping only the first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from actors.calls import result_of
from actors.local import accelerator, local_ray
from cluster.table import TABLE

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(180)]

REPORT = """
import json, os, signal
import ray
from actors.local import accelerator, local_ray

@ray.remote(num_cpus=0)
def node():
    return ray.get_runtime_context().gcs_address, signal.getsignal(signal.SIGINT) is signal.SIG_IGN

with local_ray({arguments}):
    address, cannot_be_cancelled = ray.get(node.remote())
    found = {{
        "address": address,
        "cannot_be_cancelled": cannot_be_cancelled,
        "cpus": ray.cluster_resources()["CPU"],
        "mode": os.environ.get("RAY_AUTH_MODE"),
        "accelerator": accelerator(),
    }}
found["still_connected"] = ray.is_initialized()
print(json.dumps(found))
"""


def run_report(arguments: str, **environment: str) -> dict[str, object]:
    """What a fresh process in the background finds inside and after `local_ray(arguments)`."""
    import json

    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(arguments=arguments)],
        env={**plain, "PYTHONPATH": str(Path.cwd()), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell's `&` does
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@ray.remote(num_cpus=0)
def ping() -> str:
    return "here"


def test_one_of_our_own_is_locked_and_leaves_nothing(tmp_path: Path) -> None:
    ours = ray.get_runtime_context().gcs_address
    temporary = Path("/tmp") / f"farm-{os.getpid()}"
    temporary.mkdir()
    found = run_report(
        "num_cpus=3, num_gpus=0, address='local'", HOME=str(tmp_path), TMPDIR=str(temporary)
    )
    assert found.pop("address") != ours
    assert found == {
        "cpus": 3.0,
        "cannot_be_cancelled": False,
        "mode": "token",
        "accelerator": "cpu",
        "still_connected": False,
    }
    assert not (tmp_path / ".ray").exists()  # no token that a later Ray would find
    temporary.rmdir()  # empty


def test_the_cluster_of_the_environment_is_joined_and_not_stopped() -> None:
    ours = ray.get_runtime_context().gcs_address
    auth = {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH")}
    found = run_report("", RAY_ADDRESS=ours, **auth)
    assert found["address"] == ours
    assert found["still_connected"] is False
    assert result_of(ping.remote()) == "here"


def test_a_ray_that_is_already_there_is_used_and_stays() -> None:
    ours = ray.get_runtime_context().gcs_address
    with local_ray(num_cpus=7):
        assert ray.get_runtime_context().gcs_address == ours
    assert ray.is_initialized()
    assert accelerator() == "cpu"
    assert ray.cluster_resources()["object_store_memory"] == TABLE.local_ray.object_store_bytes
