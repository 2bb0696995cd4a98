"""Kubernetes' own documents around KubeRay's, and the kustomizations that put them together."""

import json
from typing import Any

from cluster.rendering.kuberay import MANIFEST_CONFIG, REDIS, REDIS_SECRET
from cluster.rendering.pods import (
    APP_LABEL,
    CACHE_CLAIM,
    CONTAINER_SECURITY,
    STORE_ACCOUNT,
    Document,
    pod_labels,
)
from cluster.settings import DASHBOARD_PORT, METRICS_PORT, SERVE_PORT, Settings

_REDIS_IMAGE = "redis:7.4.2-alpine"
_REDIS_USER = 999
_REDIS_PORT = 6379
_PRIORITIES = {
    "editfarm-head": (1000, "The head: without it a job starts again."),
    "editfarm-online": (500, "Edits that somebody waits for."),
    "editfarm-batch": (100, "Edits of jobs: they resume elsewhere."),
}


def namespace(settings: Settings) -> Document:
    """The namespace, with the pod security standard that our pods keep."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": settings.namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
    }


def account(settings: Settings) -> Document:
    """The identity by which pods reach the store; the cloud's role is annotated in an overlay."""
    return _core("ServiceAccount", STORE_ACCOUNT, settings) | {
        "automountServiceAccountToken": False
    }


def priorities() -> list[Document]:
    """Which pods go first where there is no room for all."""
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "globalDefault": False,
            "description": text,
        }
        for name, (value, text) in _PRIORITIES.items()
    ]


def model_cache(settings: Settings) -> Document:
    """Weights that GPU pods map into memory, and what all pods read of a model set."""
    return _core("PersistentVolumeClaim", CACHE_CLAIM, settings) | {
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "100Gi"}},
        }
    }


def disruption(settings: Settings) -> Document:
    """No voluntary eviction of a head: a node's drain waits until somebody moves it."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata("editfarm-head", settings),
        "spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": pod_labels(settings) | {"ray.io/node-type": "head"}},
        },
    }


def network(settings: Settings) -> list[Document]:
    """The farm's pods talk to each other; HTTP comes in by one port, and out goes DNS and HTTPS."""
    farm = {"podSelector": {"matchLabels": pod_labels(settings)}}
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    return [
        _policy("editfarm-closed", settings, {"policyTypes": ["Ingress", "Egress"]}),
        _policy(
            "editfarm-inside",
            settings,
            {
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [farm]}],
                "egress": [{"to": [farm]}],
            },
        ),
        _policy(
            "editfarm-doors",
            settings,
            {
                "policyTypes": ["Ingress"],
                "ingress": [
                    {"from": [_namespace("ingress")], "ports": [_port(SERVE_PORT)]},
                    {"from": [_namespace("monitoring")], "ports": [_port(METRICS_PORT)]},
                    {"from": [operator], "ports": [_port(DASHBOARD_PORT), _port(SERVE_PORT)]},
                ],
            },
        ),
        _policy(
            "editfarm-out",
            settings,
            {
                "policyTypes": ["Egress"],
                "egress": [
                    {
                        "to": [{"namespaceSelector": {}}],
                        "ports": [_port(53, "UDP"), _port(53)],
                    },
                    # the store, the Kubernetes API of the autoscaler, and webhooks
                    {
                        "to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}],
                        "ports": [_port(443), _port(6443)],
                    },
                ],
            },
        ),
    ]


def redis(settings: Settings) -> list[Document]:
    """A small Redis that keeps the head's tables; take your cloud's own where there is one."""
    labels = pod_labels(settings) | {"app.kubernetes.io/name": REDIS}
    container = {
        "name": "redis",
        "image": _REDIS_IMAGE,
        "command": ["sh", "-c"],
        "args": ['exec redis-server --appendonly yes --dir /data --requirepass "$REDIS_PASSWORD"'],
        "env": [
            {
                "name": "REDIS_PASSWORD",
                "valueFrom": {"secretKeyRef": {"name": REDIS_SECRET, "key": "password"}},
            }
        ],
        "ports": [{"name": "redis", "containerPort": _REDIS_PORT}],
        "readinessProbe": {"tcpSocket": {"port": _REDIS_PORT}, "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": _REDIS_PORT}, "periodSeconds": 20},
        "resources": {
            "requests": {"cpu": "250m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _REDIS_USER,
            "fsGroup": _REDIS_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "8Gi"}},
        },
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": _metadata(REDIS, settings),
            "spec": {
                "serviceName": REDIS,
                "replicas": 1,
                "selector": {"matchLabels": {"app.kubernetes.io/name": REDIS}},
                "template": {"metadata": {"labels": labels}, "spec": pod},
                "volumeClaimTemplates": [claim],
            },
        },
        _core("Service", REDIS, settings)
        | {
            "spec": {
                "selector": {"app.kubernetes.io/name": REDIS},
                "ports": [{"name": "redis", "port": _REDIS_PORT, "targetPort": "redis"}],
            }
        },
    ]


def pod_monitors(settings: Settings) -> Document:
    """What the Prometheus operator scrapes: every Ray pod's exporter."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": _metadata("editfarm", settings),
        "spec": {
            "selector": {"matchLabels": pod_labels(settings)},
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    "interval": "15s",
                    "relabelings": [
                        {
                            "sourceLabels": ["__meta_kubernetes_pod_label_ray_io_group"],
                            "targetLabel": "group",
                        }
                    ],
                }
            ],
        },
    }


def prometheus_rule(settings: Settings, groups: list[Document]) -> Document:
    """The alerts, as the Prometheus operator takes them."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _metadata("editfarm", settings),
        "spec": {"groups": groups},
    }


def kustomization(resources: list[str], **more: Any) -> Document:
    """A `kustomization.yaml`."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        **more,
    }


def manifest_config() -> list[Document]:
    """The manifest of edits that a RayJob's head mounts, made of the file beside it."""
    return [
        {
            "name": MANIFEST_CONFIG,
            "files": ["edits.jsonl"],
            "options": {"disableNameSuffixHash": True},
        }
    ]


def replace(kind: str, name: str, values: dict[str, Any]) -> Document:
    """A patch of a kustomization: values by JSON pointer, which must exist."""
    lines = [
        json.dumps({"op": "replace", "path": path, "value": value})
        for path, value in values.items()
    ]
    patch = "".join(f"- {line}\n" for line in lines)
    return {"target": {"kind": kind, "name": name}, "patch": patch}


def _metadata(name: str, settings: Settings) -> Document:
    return {"name": name, "namespace": settings.namespace, "labels": {APP_LABEL: settings.name}}


def _core(kind: str, name: str, settings: Settings) -> Document:
    return {"apiVersion": "v1", "kind": kind, "metadata": _metadata(name, settings)}


def _policy(name: str, settings: Settings, spec: Document) -> Document:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(name, settings),
        "spec": {"podSelector": {"matchLabels": pod_labels(settings)}, **spec},
    }


def _namespace(role: str) -> Document:
    return {"namespaceSelector": {"matchLabels": {"editfarm/role": role}}}


def _port(port: int, protocol: str = "TCP") -> Document:
    return {"protocol": protocol, "port": port}
