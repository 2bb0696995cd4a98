"""Emptying a node that will be taken away: nothing new is placed on it, what runs may finish.

Trainers that do not finish are started again elsewhere when the machine is gone, from their last
checkpoint; backbones likewise, as their calls are stateless.
"""

import time
import urllib.error
import urllib.request
from typing import Any, Literal, TypeAlias

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue] - compiled
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError

from actors.cluster_state import read_cluster
from farm.errors import UnavailableError

Cloud: TypeAlias = Literal["aws", "gcp"]

_messages: Any = autoscaler_pb2  # generated, without types
_POLL = 2.0  # seconds
_NOTICE_POLL = 5.0
_REQUEST_SECONDS = 2.0
_AWS = "http://169.254.169.254"
_GCP = "http://metadata.google.internal"


def this_node() -> str:
    """Id of the node that this driver is on."""
    return ray.get_runtime_context().get_node_id()


def drain(address: str, node_id: str, *, seconds: float, message: str) -> None:
    """Tell the cluster that a node will be gone in so many seconds.

    Raises:
        UnavailableError: the cluster does not answer, or refuses.
    """
    deadline = int((time.time() + seconds) * 1000)
    reason = _messages.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    try:
        accepted, why = GcsClient(address).drain_node(node_id, reason, message, deadline)
    except RayError as error:
        raise UnavailableError(
            f"no Ray answers at {address} ({error}): is this machine part of it?"
        ) from error
    if not accepted:
        raise UnavailableError(f"node {node_id} is not drained: {why}")


def wait_until_empty(address: str, node_id: str, *, seconds: float) -> bool:
    """Wait until nothing runs on a node, or it is gone; whether that was in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [node for node in read_cluster(address).nodes if node.id == node_id]
        if not found or not any(found[0].used.values()):
            return True
        time.sleep(min(_POLL, max(0.0, end - time.monotonic())))
    return False


def await_notice(cloud: Cloud, *, base: str | None = None, poll: float = _NOTICE_POLL) -> str:
    """Ask the cloud's metadata service again and again until it takes this machine away.

    Args:
        cloud: whose.
        base: address of the service, instead of the cloud's.
        poll: seconds between two questions.

    Returns:
        What it said.
    """
    ask = _aws_notice if cloud == "aws" else _gcp_notice
    address = base or (_AWS if cloud == "aws" else _GCP)
    while True:
        said = ask(address)
        if said is not None:
            return said
        time.sleep(poll)


def _aws_notice(base: str) -> str | None:
    """The spot instance's action, two minutes before it happens; 404 until then."""
    token = _fetch(
        f"{base}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT"
    )
    if token is None:
        return None
    return _fetch(
        f"{base}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token}
    )


def _gcp_notice(base: str) -> str | None:
    """Whether the machine is being preempted: half a minute before its end."""
    said = _fetch(f"{base}/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return "preempted" if said == "TRUE" else None


def _fetch(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The text at an address of the machine's own metadata service; None if it has none now."""
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as reply:  # noqa: S310
            return reply.read().decode().strip()
    except (urllib.error.URLError, TimeoutError):
        return None
