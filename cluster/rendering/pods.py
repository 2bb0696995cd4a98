"""Pods of the farm on Kubernetes: a head, and one worker group for each kind of node."""

from typing import Any, TypeAlias

from cluster.nodes import NodeKind, NodeTable
from cluster.settings import (
    CLIENT_PORT,
    DASHBOARD_PORT,
    GCS_PORT,
    HOME,
    METRICS_PORT,
    MODEL_CACHE,
    MODEL_CACHE_VARIABLES,
    SERVE_PORT,
    SETTLE_SECONDS,
    USER_ID,
    Settings,
    environment,
    model_cache_command,
)

Document: TypeAlias = dict[str, Any]

APP_LABEL = "app.kubernetes.io/part-of"
KIND_NODE_LABEL = "editfarm/kind"
"""Node pools carry it, with the name of a kind of the table."""
SPOT_TAINT = "editfarm/market"
CACHE_CLAIM = "model-cache"
STORE_ACCOUNT = "editfarm"
STORE_SECRET = "editfarm-store"  # noqa: S105 - a name
TOKEN_SECRET = "editfarm-auth"  # noqa: S105 - a name
_AGENT_PORT = 52365  # Ray's default, which KubeRay counts on
_SHARE_OF_NODE = 0.85
"""Of a machine's cores and memory that a pod may ask for; the rest is Kubernetes' own."""
_SHM_SHARE = 0.33
"""Of a pod's memory: Ray's object store takes 30 % of what the pod may use."""

_POD_SECURITY: Document = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Document = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def variables(values: dict[str, str]) -> list[Document]:
    """Environment variables as containers take them."""
    return [{"name": name, "value": value} for name, value in values.items()]


def pod_labels(settings: Settings) -> Document:
    """Of every pod of the farm; policies and monitors select by it."""
    return {APP_LABEL: settings.name}


def head_group(nodes: NodeTable, settings: Settings, extra: dict[str, str]) -> Document:
    """The head group: no work on it."""
    head = nodes.head
    container = {
        "name": "ray-head",
        "image": settings.image_cpu,
        "ports": [
            {"name": "gcs-server", "containerPort": GCS_PORT},
            {"name": "dashboard", "containerPort": DASHBOARD_PORT},
            {"name": "client", "containerPort": CLIENT_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "serve", "containerPort": SERVE_PORT},
        ],
        "readinessProbe": _probe("/api/gcs_healthz", DASHBOARD_PORT, failures=5),
        "livenessProbe": _probe("/api/gcs_healthz", DASHBOARD_PORT, failures=40),
        **_container(head, extra),
    }
    return {
        "serviceType": "ClusterIP",
        "labels": head.labels,
        "rayStartParams": {
            "num-cpus": "0",
            "num-gpus": "0",
            # the operator asks it; the network policy and the token keep others out
            "dashboard-host": "0.0.0.0",  # noqa: S104
            "metrics-export-port": str(METRICS_PORT),
        },
        # here too: jobs and Serve's controller open the model set before any GPU pod is asked for
        "template": _template(
            head,
            settings,
            container,
            init=[_model_cache(settings, head)],
            priority="editfarm-head",
        ),
    }


def worker_group(
    kind: NodeKind, settings: Settings, extra: dict[str, str], *, priority: str
) -> Document:
    """The worker group of a kind of node."""
    container = {
        "name": "ray-worker",
        "image": settings.image_cuda if kind.gpus else settings.image_cpu,
        "ports": [
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "serve", "containerPort": SERVE_PORT},
        ],
        "readinessProbe": _probe("/api/local_raylet_healthz", _AGENT_PORT, failures=5),
        "livenessProbe": _probe("/api/local_raylet_healthz", _AGENT_PORT, failures=40),
        # a spot node's end reaches the pod as a deletion: no new work, and time for checkpoints
        "lifecycle": {
            "preStop": {
                "exec": {"command": ["editfarm", "drain", "--seconds", str(SETTLE_SECONDS)]}
            }
        },
        **_container(kind, extra),
    }
    init = [_model_cache(settings, kind)] if kind.gpus else []
    return {
        "groupName": kind.name,
        "replicas": kind.min_nodes,
        "minReplicas": kind.min_nodes,
        "maxReplicas": kind.max_nodes,
        "idleTimeoutSeconds": kind.idle_seconds,
        "priority": kind.priority,
        "labels": kind.labels,
        "rayStartParams": {
            "num-cpus": str(kind.ray_cpus),
            "metrics-export-port": str(METRICS_PORT),
        },
        "template": _template(kind, settings, container, init=init, priority=priority),
    }


def _memory_gib(kind: NodeKind) -> int:
    """What a pod of this kind may use."""
    return round(kind.memory_gib * _SHARE_OF_NODE)


def _container(kind: NodeKind, extra: dict[str, str]) -> Document:
    amounts: Document = {
        "cpu": f"{round(kind.cpus * _SHARE_OF_NODE * 1000)}m",
        "memory": f"{_memory_gib(kind)}Gi",
    }
    if kind.gpus:
        amounts["nvidia.com/gpu"] = str(kind.gpus)
    return {
        "env": variables(environment() | extra),
        "envFrom": _store_keys(),
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": _mounts(),
    }


def _store_keys() -> list[Document]:
    """Keys of the store, where no role of the machine gives access; absent is right."""
    return [{"secretRef": {"name": STORE_SECRET, "optional": True}}]


def _mounts() -> list[Document]:
    """Of every Ray container: trainers and Serve's replicas read a model set's folder too."""
    return [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        {"name": "ray", "mountPath": "/tmp/ray"},  # noqa: S108
        {"name": "models", "mountPath": MODEL_CACHE, "readOnly": True},
    ]


def _model_cache(settings: Settings, kind: NodeKind) -> Document:
    """The step before head and GPU pods: networks as safetensors files that can be mapped."""
    words = model_cache_command(settings)
    return {
        "name": "model-cache",
        "image": settings.image_cuda if kind.gpus else settings.image_cpu,
        "command": words[:3],
        "args": words[3:],
        "env": variables({"HOME": HOME} | MODEL_CACHE_VARIABLES),
        "envFrom": _store_keys(),  # the source or its mirror may be in a bucket
        "resources": {
            "requests": {"cpu": "1", "memory": "8Gi"},
            "limits": {"cpu": "4", "memory": "16Gi"},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "models", "mountPath": MODEL_CACHE}],
    }


def _template(
    kind: NodeKind,
    settings: Settings,
    container: Document,
    *,
    init: list[Document],
    priority: str,
) -> Document:
    shm = f"{round(_memory_gib(kind) * _SHM_SHARE)}Gi"
    volumes: list[Document] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}},
        {"name": "ray", "emptyDir": {"sizeLimit": f"{kind.disk_gib // 2}Gi"}},
        {"name": "models", "persistentVolumeClaim": {"claimName": CACHE_CLAIM}},
    ]
    tolerations: list[Document] = []
    if kind.gpus:
        tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
    if kind.market == "spot":
        tolerations.append(
            {"key": SPOT_TAINT, "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
        )
    return {
        "metadata": {"labels": pod_labels(settings)},
        "spec": {
            "serviceAccountName": STORE_ACCOUNT,
            "automountServiceAccountToken": kind.pool == "head",  # the autoscaler's
            "priorityClassName": priority,
            "terminationGracePeriodSeconds": SETTLE_SECONDS + 30,
            "nodeSelector": {KIND_NODE_LABEL: kind.name},
            "tolerations": tolerations,
            "securityContext": _POD_SECURITY,
            **({"initContainers": init} if init else {}),
            "containers": [container],
            "volumes": volumes,
        },
    }


def _probe(path: str, port: int, *, failures: int) -> Document:
    """A probe of Ray's own health; these paths need no token."""
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": 10,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
