"""Which machines of a cluster belong to backbones and which to trainers, by their labels.

A cluster that `cluster/nodes.py` describes labels its nodes, its head first; a Ray of one machine
has no labels, and there everything runs everywhere.
"""

from functools import cache
from typing import Any

import ray

from cluster.nodes import POOL_LABEL, Pool, selector

_START_SECONDS = 300.0  # weights from a disk, libraries, a warm-up
_MACHINE_SECONDS = 1500.0  # a machine, its boot and an image of some gigabytes


def start_patience() -> float:
    """Seconds that a backbone may take to be ready: more where its machine must come first."""
    return _START_SECONDS + (_MACHINE_SECONDS if has_pools() else 0.0)


def pool_options(pool: Pool) -> dict[str, Any]:
    """Options that keep a task or an actor on the nodes of a pool, where there are pools."""
    return {"label_selector": selector(pool)} if has_pools() else {}


def has_pools() -> bool:
    """Whether the cluster of this process tells its nodes apart; the head says it for all."""
    if not ray.is_initialized():
        return False
    return _labelled(ray.get_runtime_context().gcs_address)


@cache
def _labelled(address: str) -> bool:
    del address  # the answer is one cluster's, for as long as it lives
    return any(POOL_LABEL in (node.get("Labels") or {}) for node in ray.nodes())
