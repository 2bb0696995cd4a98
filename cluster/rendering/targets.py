"""Which files there are: what `editfarm cluster render` writes, by target."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from cluster.nodes import NODES, NodeTable
from cluster.rendering.alerts import alert_file
from cluster.rendering.clouds import aws, gcp, onprem
from cluster.rendering.dashboard import dashboard
from cluster.rendering.images import (
    compose,
    compose_serve,
    dockerfile,
    dockerignore,
    monitoring_files,
)
from cluster.rendering.kuberay_tree import kuberay_files
from cluster.rendering.text import HEADER, json_text
from cluster.settings import SETTINGS, Settings

Files: TypeAlias = dict[str, str]
"""Texts by path below the folder `cluster`."""


def render(
    target: str, nodes: NodeTable = NODES, settings: Settings = SETTINGS, serve_config: str = ""
) -> Files:
    """The files of a target, one of `TARGETS`.

    Args:
        target: which.
        nodes: kinds of nodes.
        settings: of the deployment.
        serve_config: Ray Serve's configuration as text; it becomes part of the RayService.
    """
    return _TARGETS[target](nodes, settings, serve_config)


def render_all(serve_config: str) -> Files:
    """All files with the defaults: what is committed."""
    files: Files = {}
    for target in TARGETS:
        files |= render(target, serve_config=serve_config)
    return files


def _aws(nodes: NodeTable, settings: Settings, serve_config: str) -> Files:
    del serve_config
    return {"aws.yaml": aws(nodes, settings)}


def _gcp(nodes: NodeTable, settings: Settings, serve_config: str) -> Files:
    del serve_config
    return {"gcp.yaml": gcp(nodes, settings)}


def _onprem(nodes: NodeTable, settings: Settings, serve_config: str) -> Files:
    del serve_config
    return {"onprem.yaml": onprem(nodes, settings)}


def _kuberay(nodes: NodeTable, settings: Settings, serve_config: str) -> Files:
    found = kuberay_files(nodes, settings, serve_config)
    return {f"kuberay/{path}": text for path, text in found.items()}


def _compose(nodes: NodeTable, settings: Settings, serve_config: str) -> Files:
    del nodes
    served = compose_serve(settings, serve_config)
    return {
        "compose.yaml": compose(settings, serve_config),
        **({"serve.yaml": HEADER + served} if served else {}),
        "Dockerfile": dockerfile(settings),
        "Dockerfile.dockerignore": dockerignore(),
        "monitoring/alerts.yaml": alert_file(),
        "monitoring/editfarm.json": json_text(dashboard()),
        **{f"monitoring/{name}": text for name, text in monitoring_files().items()},
    }


_TARGETS: Mapping[str, Callable[[NodeTable, Settings, str], Files]] = {
    "aws": _aws,
    "gcp": _gcp,
    "onprem": _onprem,
    "kuberay": _kuberay,
    "compose": _compose,
}
TARGETS: tuple[str, ...] = tuple(_TARGETS)
