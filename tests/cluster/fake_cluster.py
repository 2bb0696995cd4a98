"""A cluster on one machine whose nodes come and go as Ray's autoscaler (version 2) wants.

Nodes have the shapes, labels, limits and priorities of `cluster/nodes.py`, through the function
that renders the launcher's files too; Ray's fake provider stands for the cloud. Ray's own
`AutoscalingCluster` cannot be used: its file is missing in the wheel of 2.60, and it stops every
Ray of the machine.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil
import ray

from actors.cluster_state import ClusterState, read_cluster
from cluster.nodes import NodeTable
from cluster.rendering.launcher import node_type

_HEAD_ID = "f" * 51 + "00000"
_OBJECT_STORE = 80 * 2**20
_EMPTY: dict[str, Any] = {
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


class FakeCluster:
    """What a test may do with it."""

    def __init__(self, address: str, nodes: NodeTable, head: psutil.Process) -> None:
        self.address, self.nodes, self._head = address, nodes, head

    def state(self) -> ClusterState:
        return read_cluster(self.address, self.nodes)

    def wait(self, holds: Callable[[ClusterState], Any], seconds: float = 40.0) -> ClusterState:
        """Ask until something holds; what is asked is a table in memory, so nothing is timed."""
        end = time.monotonic() + seconds
        while True:
            state = self.state()
            if holds(state):
                return state
            assert time.monotonic() < end, state
            time.sleep(0.2)  # between two questions

    def workers(self) -> list[str]:
        """Kinds of the workers that are there."""
        return sorted(node.kind for node in self.state().nodes if node.kind != "head")

    def take_away(self, node_id: str) -> None:
        """What a cloud does at the end of its notice: the machine is off."""
        (socket_name,) = [
            node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == node_id
        ]
        raylets = [
            process
            for process in self._head.children(recursive=True)
            if any(socket_name in part for part in _command(process))
        ]
        assert raylets
        for raylet in raylets:
            family = [*raylet.children(recursive=True), raylet]
            for process in family:
                with suppress(psutil.NoSuchProcess):  # an idle worker ends by itself
                    process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def fake_cluster(nodes: NodeTable) -> Iterator[FakeCluster]:
    """A head with the autoscaler, and no worker yet; this process is connected to it."""
    folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))  # sockets need a short path
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "autoscaling.json"
    config.write_text(json.dumps(_config(nodes, port)))
    log = (folder / "head.log").open("wb")
    process = subprocess.Popen(
        _command_line(port, config, folder, nodes),
        env=_environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    head = psutil.Process(process.pid)
    address = f"{ray.util.get_node_ip_address()}:{port}"
    try:
        _await_gcs(address, process, folder)
        ray.init(address, log_to_driver=False, logging_level="ERROR", namespace="cluster-test")
        try:
            yield FakeCluster(address, nodes, head)
        finally:
            ray.shutdown()
    finally:
        _end(head)
        log.close()
        rmtree(folder, ignore_errors=True)


def _config(nodes: NodeTable, port: int) -> dict[str, Any]:
    types = {kind.name: node_type(kind, {}) for kind in nodes.kinds}
    for row in types.values():
        row.pop("docker", None)
        row["resources"] = {**row["resources"], "object_store_memory": _OBJECT_STORE}
    types["ray.head.default"] = types.pop("head")  # the fake provider's own name
    return {
        "cluster_name": "fake",
        "max_workers": nodes.max_workers,
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{ray.util.get_node_ip_address()}:{port}",
            "head_node_id": _HEAD_ID,
            "launch_multiple": True,
        },
        "available_node_types": types,
        "head_node_type": "ray.head.default",
        **_EMPTY,
    }


def _command_line(port: int, config: Path, folder: Path, nodes: NodeTable) -> list[str]:
    labels = ",".join(f"{name}={value}" for name, value in nodes.head.labels.items())
    return [
        str(Path(sys.executable).parent / "ray"),
        *("start", "--head", "--block", f"--port={port}", f"--autoscaling-config={config}"),
        *("--num-cpus=0", "--num-gpus=0", f"--object-store-memory={_OBJECT_STORE}"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
        f"--labels={labels}",
    ]


def _environment() -> dict[str, str]:
    return dict(
        os.environ,
        AUTOSCALER_UPDATE_INTERVAL_S="1",
        RAY_FAKE_CLUSTER="1",
        RAY_enable_autoscaler_v2="1",
        RAY_CLOUD_INSTANCE_ID=_HEAD_ID,
        RAY_OVERRIDE_NODE_ID_FOR_TESTING=_HEAD_ID,
        # a node of sixteen cores would start sixteen processes on a machine that has two
        RAY_enable_worker_prestart="0",
        RAY_prestart_worker_first_driver="0",
        RAY_health_check_initial_delay_ms="0",
        RAY_health_check_period_ms="500",
        RAY_health_check_timeout_ms="2000",
        RAY_health_check_failure_threshold="4",
        PYTHONPATH=str(Path(__file__).parents[2]),
    )


def _await_gcs(address: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    host, port = address.split(":")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "head.log").read_text()
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError((folder / "head.log").read_text())


def _end(head: psutil.Process) -> None:
    """Our own processes only."""
    family = [*head.children(recursive=True), head]
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=3)
    for process in alive:
        process.kill()
