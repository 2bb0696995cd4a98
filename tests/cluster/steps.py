"""An edit of no computation, with the farm's own leases and checkpoints; runs in a Ray task."""

import uuid
from pathlib import Path
from typing import Any

import ray

from farm.storage.checkpoints import load_checkpoint, save_checkpoint
from farm.storage.leases import Lease
from farm.storage.local import LocalStore
from farm.storage.stages import wait_or_compute
from tests.actors.toy import arrive_and_wait

STEPS = 6
HELD_AFTER = 3


def train(folder: Path, target: str, meeting: Path | None) -> dict[str, Any]:
    """Count to `STEPS` with a checkpoint each; the first to get so far waits at the meeting.

    Returns:
        `start`, the step that this run went on from, and its `node`.
    """
    store = LocalStore(folder)
    node = ray.get_runtime_context().get_node_id()
    begun = 0

    def compute(lease: Lease) -> dict[str, bytes]:
        nonlocal begun
        begun = int(load_checkpoint(store, target) or b"0")
        for step in range(begun + 1, STEPS + 1):
            save_checkpoint(store, target, str(step).encode(), lease)
            store.put(f"log/{target}/{step}-{uuid.uuid4().hex}", node.encode())
            if meeting is not None and step == HELD_AFTER:
                arrive_and_wait(meeting)
        return {"steps": str(STEPS).encode()}

    wait_or_compute(store, target, uuid.uuid4().hex, compute, ttl=1.0, poll=0.1)
    return {"start": begun, "node": node}


class Holder:
    """Stands for a backbone: it holds an accelerator and answers."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()
