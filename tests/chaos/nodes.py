"""Three Ray nodes on this machine with an accelerator each that is none, and ways to kill them."""

import contextlib
import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from actors.logical_nodes import logical_cluster

NODES = 3
_OBJECT_STORE = 100 * 2**20
_SYSTEM = {  # a dead node, which refuses, is noticed within seconds; a slow one may take its time
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 6,
    "scheduler_spread_threshold": 0.1,  # trainers go to all nodes
}


@dataclass
class Nodes:
    """The head, which runs nothing, and the nodes that do."""

    cluster: Cluster
    workers: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self) -> None:
        self.workers.append(
            self.cluster.add_node(
                wait=False,
                num_cpus=1,
                num_gpus=1,
                include_log_monitor=False,
                object_store_memory=_OBJECT_STORE,
            )
        )

    def replace_one(self, draw: random.Random) -> None:
        """Kill a node with all that runs on it; another takes its place."""
        node = self.workers.pop(draw.randrange(len(self.workers)))
        children = self.processes(node)
        self.cluster.remove_node(node, allow_graceful=False)
        for pid, _ in children:
            kill(pid)
        self.add()

    def processes(self, node: Any) -> list[tuple[int, str]]:
        """Workers of a node with what they call themselves."""
        return children_of(node.all_processes["raylet"][0].process.pid)

    def trainers(self) -> list[int]:
        """Processes that run an edit; they are called by its line and name."""
        return self._called(re.compile(r"ray::\d+:"))

    def backbones(self) -> list[int]:
        """Processes that hold the networks."""
        return self._called(re.compile(r"ray::Backbone"))

    def _called(self, title: re.Pattern[str]) -> list[int]:
        found = [each for node in self.workers for each in self.processes(node)]
        return [pid for pid, name in found if title.match(name)]


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    """A cluster of our own; nobody without its token can use it."""
    with logical_cluster(
        num_cpus=0,
        num_gpus=0,
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        object_store_memory=_OBJECT_STORE,
        _system_config=_SYSTEM,
    ) as cluster:
        nodes = Nodes(cluster)
        for _ in range(NODES):
            nodes.add()
        yield nodes


def children_of(parent: int) -> list[tuple[int, str]]:
    """Processes of this parent, with their titles."""
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile
            about = (entry / "stat").read_text()
            if int(about.rpartition(")")[2].split()[1]) == parent:
                title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                found.append((int(entry.name), title))
    return found


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
