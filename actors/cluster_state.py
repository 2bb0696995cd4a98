"""What the cluster has, what is asked of it, and why something waits.

Read from GCS alone: no task runs for it, and the reader joins nothing.
"""

import os
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue] - compiled
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError

from cluster.nodes import KIND_LABEL, NODES, NodeKind, NodeTable
from farm.errors import UnavailableError

_messages: Any = autoscaler_pb2  # generated, without types
_TIMEOUT = 10  # seconds
_OUR_RESOURCES = ("CPU", "GPU")
_STATES = {1: "busy", 2: "dead", 3: "idle", 4: "draining"}
_NOT_IN = 2  # operator of a label selector


@dataclass(frozen=True)
class NodeState:
    """One machine that is there.

    Attributes:
        id: Ray's, in hexadecimal.
        kind: of the table, or Ray's name of its type.
        labels: of the node.
        state: busy, idle or draining.
        total: of CPU and GPU.
        used: of them.
        idle_seconds: for which nothing has run on it.
        doing: what keeps it, in Ray's words.
    """

    id: str
    kind: str
    labels: Mapping[str, str]
    state: str
    total: Mapping[str, float]
    used: Mapping[str, float]
    idle_seconds: float
    doing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Tasks or actors of one shape that have no machine.

    Attributes:
        resources: that each of them asks for.
        selector: labels that its node must have.
        count: how many.
        reasons: why they wait, in sentences.
        hopeless: whether no kind of node fits, so that waiting is no use.
    """

    resources: Mapping[str, float]
    selector: Mapping[str, str]
    count: int
    reasons: tuple[str, ...] = ()
    hopeless: bool = False


@dataclass(frozen=True)
class ClusterState:
    """All of it at one moment.

    Attributes:
        nodes: that are there, dead ones left out.
        starting: machines that were asked for, by kind.
        failures: kinds whose machines could not be had, with the provider's reason.
        waits: what has no machine.
        autoscaled: whether an autoscaler has told of itself.
    """

    nodes: tuple[NodeState, ...]
    starting: Mapping[str, int] = field(default_factory=dict[str, int])
    failures: tuple[tuple[str, str], ...] = ()
    waits: tuple[Wait, ...] = ()
    autoscaled: bool = False

    def count(self, kind: str) -> int:
        """Machines of a kind that are there or coming."""
        return sum(node.kind == kind for node in self.nodes) + self.starting.get(kind, 0)


def find_address(given: str | None = None) -> str:
    """Host and port of the cluster's GCS.

    Args:
        given: an address; by default RAY_ADDRESS, else the Ray that runs on this machine.

    Raises:
        UnavailableError: there is none, or nobody listens there.
    """
    try:
        address = canonicalize_bootstrap_address(given or os.environ.get("RAY_ADDRESS", "auto"))
    except ConnectionError:  # Ray's own, where none is found
        address = None
    if not address:
        raise UnavailableError(
            "no Ray runs on this machine: run this on the head (`ray exec`, `kubectl exec`), or "
            "give --address or RAY_ADDRESS"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"nobody listens at {address} ({error}): check the address, or start the cluster"
        ) from error
    return address


def read_cluster(address: str, nodes: NodeTable = NODES) -> ClusterState:
    """The state of the cluster whose GCS listens at an address.

    Args:
        address: host and port.
        nodes: kinds and their limits, for the reasons.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        data = GcsClient(address).get_cluster_status(timeout_s=_TIMEOUT)
    except RayError as error:
        raise UnavailableError(
            f"no Ray answers at {address} ({error}): check the address, and that RAY_AUTH_MODE and "
            "the token are the cluster's"
        ) from error
    reply = _messages.GetClusterStatusReply()
    reply.ParseFromString(data)
    return _parse(reply, nodes)


def _parse(reply: Any, nodes: NodeTable) -> ClusterState:
    scaling, resources = reply.autoscaling_state, reply.cluster_resource_state
    alive = tuple(
        _node(node) for node in resources.node_states if _STATES.get(node.status) != "dead"
    )
    starting = Counter[str]()
    for request in scaling.pending_instance_requests:
        starting[request.ray_node_type_name] += request.count
    there = {node.instance_id for node in resources.node_states}
    for instance in scaling.pending_instances:
        if instance.instance_id not in there:  # for a moment it is told of twice
            starting[instance.ray_node_type_name] += 1
    failures = [
        (failed.ray_node_type_name, failed.reason) for failed in scaling.failed_instance_requests
    ]
    state = ClusterState(
        alive, dict(starting), tuple(failures), (), scaling.autoscaler_state_version > 0
    )
    asked: Counter[tuple[tuple[tuple[str, float], ...], tuple[tuple[str, str], ...]]] = Counter()
    for row in resources.pending_resource_requests:
        shape = tuple(sorted(row.request.resources_bundle.items()))
        asked[shape, tuple(_selector(row.request).items())] += row.count
    waits = [
        explain(Wait(dict(shape), dict(labels), number), state, nodes)
        for (shape, labels), number in asked.items()
    ]
    return ClusterState(alive, state.starting, state.failures, tuple(waits), state.autoscaled)


def _node(node: Any) -> NodeState:
    labels = dict(node.labels)
    total = {name: node.total_resources.get(name, 0.0) for name in _OUR_RESOURCES}
    return NodeState(
        id=node.node_id.hex(),
        kind=labels.get(KIND_LABEL) or node.ray_node_type_name or "node",
        labels=labels,
        state=_STATES.get(node.status, "unknown"),
        total=total,
        used={name: total[name] - node.available_resources.get(name, 0.0) for name in total},
        idle_seconds=node.idle_duration_ms / 1000,
        doing=tuple(node.node_activity),
    )


def _selector(request: Any) -> dict[str, str]:
    """The first choice of labels that a request names; ours name one value each."""
    found: dict[str, str] = {}
    for chosen in list(request.label_selectors)[:1]:
        for constraint in chosen.label_constraints:
            values = "|".join(constraint.label_values)
            found[constraint.label_key] = f"!{values}" if constraint.operator == _NOT_IN else values
    return found


def explain(wait: Wait, state: ClusterState, nodes: NodeTable = NODES) -> Wait:
    """The same with the reasons why it has no machine, as far as they can be told."""
    if not state.autoscaled:
        free = [f"{_amounts(_free(node))} on {node.kind}" for node in state.nodes]
        alone = f"this Ray starts no machines by itself; free are {', '.join(free) or 'none'}"
        return replace(wait, reasons=(alone,))
    kinds = [kind for kind in nodes.workers if _fits(kind, wait)]
    if not kinds:
        shapes = ", ".join(f"{kind.name} ({_amounts(kind.resources)})" for kind in nodes.workers)
        asked = f"{_amounts(wait.resources)} with {_labels(wait.selector)}"
        return replace(wait, hopeless=True, reasons=(f"no kind of node has {asked}: {shapes}",))
    reasons: list[str] = []
    if all(state.count(kind.name) >= kind.max_nodes for kind in kinds):
        full = ", ".join(f"{k.name} {state.count(k.name)} of {k.max_nodes}" for k in kinds)
        reasons.append(f"every kind that fits is at its maximum: {full}; raise max_nodes, or wait")
    coming = {kind.name: state.starting.get(kind.name, 0) for kind in kinds}
    reasons += [f"{count} {name} starting" for name, count in coming.items() if count]
    reasons += [f"{name} cannot be had: {why}" for name, why in state.failures if name in coming]
    if not reasons:
        reasons.append("the autoscaler has not acted on it yet: it looks every few seconds")
    return replace(wait, reasons=tuple(reasons))


def _fits(kind: NodeKind, wait: Wait) -> bool:
    shape: Mapping[str, float] = kind.resources
    enough = all(shape.get(name, 0) >= amount for name, amount in wait.resources.items())
    return enough and all(kind.labels.get(name) == value for name, value in wait.selector.items())


def _free(node: NodeState) -> dict[str, float]:
    return {name: node.total[name] - node.used[name] for name in node.total}


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount) or "0"


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "any labels"


def by_kind(nodes: Iterable[NodeState]) -> dict[str, list[NodeState]]:
    """Nodes by their kind, in the order of the table."""
    found: dict[str, list[NodeState]] = {}
    for node in sorted(nodes, key=lambda node: (node.kind, node.id)):
        found.setdefault(node.kind, []).append(node)
    order = {kind.name: number for number, kind in enumerate(NODES.kinds)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))
