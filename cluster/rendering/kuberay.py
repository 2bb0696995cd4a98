"""KubeRay's documents: a cluster for development, a job of edits, the online farm."""

from pathlib import PurePosixPath
from typing import Any

from cluster.nodes import NodeTable
from cluster.rendering.pods import (
    CONTAINER_SECURITY,
    TOKEN_SECRET,
    Document,
    head_group,
    pod_labels,
    variables,
    worker_group,
)
from cluster.rendering.serving import serve_config as online_config
from cluster.settings import API_KEYS, USER_ID, Settings

API = "ray.io/v1"
REDIS = "editfarm-redis"
REDIS_SECRET = "editfarm-redis"  # noqa: S105 - a name
KEYS_SECRET = "editfarm-api-keys"  # noqa: S105 - a name
MANIFEST = "/manifest/edits.jsonl"
MANIFEST_CONFIG = "editfarm-manifest"
_ONLINE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # on the head and on workers: both run proxies
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "30",
}
_HOUR = 3600


def ray_cluster(nodes: NodeTable, settings: Settings) -> Document:
    """A farm that stays, for people who develop."""
    return _document("RayCluster", settings.name, settings, _cluster(nodes, settings, {}, "batch"))


def ray_job(nodes: NodeTable, settings: Settings) -> Document:
    """A manifest of edits as one job with a cluster of its own, removed in three steps."""
    cluster = _cluster(nodes, settings, {}, "batch")
    volume = {"name": "manifest", "configMap": {"name": MANIFEST_CONFIG}}
    _mount(cluster["headGroupSpec"], volume, "/manifest")
    spec = {
        "entrypoint": f"python -m jobs.edit_many --manifest {MANIFEST} --output {settings.store} "
        f"--model-set {settings.model_set} --max-in-flight 640 "
        f"--max-backbones {_most_gpus(nodes)} --json",
        "entrypointNumCpus": 0,
        "submissionMode": "K8sJobMode",
        "submitterConfig": {"backoffLimit": 3},
        "submitterPodTemplate": _submitter(settings),
        # a second try finds what the first has committed, and does the rest
        "backoffLimit": 2,
        "preRunningDeadlineSeconds": _HOUR,
        "activeDeadlineSeconds": 24 * _HOUR,
        "deletionStrategy": {
            "deletionRules": [
                *_rules("SUCCEEDED", workers=60, cluster=600, itself=24 * _HOUR),
                *_rules("FAILED", workers=60, cluster=2 * _HOUR, itself=7 * 24 * _HOUR),
            ]
        },
        "rayClusterSpec": cluster,
    }
    return _document("RayJob", f"{settings.name}-edits", settings, spec)


def ray_service(nodes: NodeTable, settings: Settings, serve_config: str) -> Document:
    """The online farm: HTTP in front, GCS tables in Redis, upgrades without a gap.

    Args:
        nodes: kinds of nodes.
        settings: of the deployment.
        serve_config: Ray Serve's configuration for one machine, as text.
    """
    cluster = _cluster(nodes, settings, _ONLINE, "online")
    keys = {"name": "api-keys", "secret": {"secretName": KEYS_SECRET}}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        _mount(group, keys, str(PurePosixPath(API_KEYS).parent))
    cluster["gcsFaultToleranceOptions"] = {
        "redisAddress": f"{REDIS}.{settings.namespace}.svc:6379",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": REDIS_SECRET, "key": "password"}}},
        "externalStorageNamespace": settings.name,
    }
    spec = {
        "serviceUnhealthySecondThreshold": 900,
        "deploymentUnhealthySecondThreshold": 300,
        "rayClusterDeletionDelaySeconds": 600,  # accepted edits finish on the old cluster
        "upgradeStrategy": {"type": "NewCluster"},
        # with no worker there at night the head alone answers
        "excludeHeadPodFromServeSvc": False,
        "serveConfigV2": online_config(
            serve_config,
            store=settings.store,
            model_set=settings.model_set,
            keys_file=API_KEYS,
            sizes={
                "max_in_flight": 64,
                "backbones": 1,
                "max_backbones": _most_gpus(nodes),
                "replicas": 2,
            },
        ),
        "rayClusterConfig": cluster,
    }
    return _document("RayService", settings.name, settings, spec)


def _most_gpus(nodes: NodeTable) -> int:
    """GPUs where all machines run: the most backbones that have one of their own."""
    return sum(kind.max_nodes * kind.gpus for kind in nodes.workers)


def _cluster(
    nodes: NodeTable, settings: Settings, extra: dict[str, str], priority: str
) -> dict[str, Any]:
    return {
        "rayVersion": settings.ray_version,
        "authOptions": {"mode": "token", "secretName": TOKEN_SECRET},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "upscalingMode": "Default",
            "resources": {
                "requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "1", "memory": "2Gi"},
            },
            "securityContext": CONTAINER_SECURITY | {"runAsNonRoot": True, "runAsUser": USER_ID},
        },
        "headGroupSpec": head_group(nodes, settings, extra),
        "workerGroupSpecs": [
            worker_group(kind, settings, extra, priority=f"editfarm-{priority}")
            for kind in nodes.workers
        ],
    }


def _document(kind: str, name: str, settings: Settings, spec: Document) -> Document:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": pod_labels(settings),
        },
        "spec": spec,
    }


def _mount(group: Document, volume: Document, path: str) -> None:
    """Give the Ray container of a group's pods a volume, to read."""
    pod = group["template"]["spec"]
    pod["volumes"].append(volume)
    mount = {"name": volume["name"], "mountPath": path, "readOnly": True}
    pod["containers"][0]["volumeMounts"].append(mount)


def _rules(status: str, *, workers: int, cluster: int, itself: int) -> list[Document]:
    """Seconds after a job's end at which workers, the cluster and the document itself go."""
    steps = {"DeleteWorkers": workers, "DeleteCluster": cluster, "DeleteSelf": itself}
    return [
        {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": seconds}}
        for policy, seconds in steps.items()
    ]


def _submitter(settings: Settings) -> Document:
    return {
        "metadata": {"labels": pod_labels(settings)},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": settings.image_cpu,
                    "env": variables({"RAY_AUTH_MODE": "token"}),
                    "resources": {
                        "requests": {"cpu": "250m", "memory": "512Mi"},
                        "limits": {"cpu": "1", "memory": "1Gi"},
                    },
                    "securityContext": CONTAINER_SECURITY,
                }
            ],
        },
    }
