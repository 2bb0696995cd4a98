"""All files under `kuberay/`: parts, and the overlays that choose among them.

kuberay/base        namespace, account, policies, priorities, model cache
kuberay/cluster     a RayCluster for development
kuberay/job         one RayJob for the manifest `edits.jsonl` beside it
kuberay/service     the RayService and its Redis
kuberay/monitoring  PodMonitor, alerts, dashboard (needs the Prometheus operator)
kuberay/overlays    dev: base and cluster, small; prod: base, service and monitoring
"""

from typing import Any

from cluster.nodes import NodeTable
from cluster.rendering import kuberay, kustomize
from cluster.rendering.alerts import alert_groups
from cluster.rendering.dashboard import dashboard
from cluster.rendering.kustomize import kustomization, replace
from cluster.rendering.text import json_text, yaml_text
from cluster.settings import Settings

_EXAMPLE_LINE = (
    '{"id": "example", "method": "style_diffusion", "image": "generated:", '
    '"source_prompt": "a photo of a dotted orange ring in the night", '
    '"target_prompt": "a photo of a dotted green ring in the night", "target_word": "green"}\n'
)
_JOB_COMMENT = """\
kubectl create -k cluster/kuberay/job, with your edits in edits.jsonl and their pictures beside it.
Together they must stay under 1 MiB, and pictures need a line each under `files`: larger manifests
lie on a volume."""
_DEV_WORKERS = 1


def kuberay_files(nodes: NodeTable, settings: Settings, serve_config: str) -> dict[str, str]:
    """Texts by path below `kuberay/`."""
    return {
        **_base(settings),
        **_part("cluster", {"raycluster.yaml": [kuberay.ray_cluster(nodes, settings)]}),
        **_job(nodes, settings),
        **_part(
            "service",
            {
                "rayservice.yaml": [kuberay.ray_service(nodes, settings, serve_config)],
                "redis.yaml": kustomize.redis(settings),
            },
        ),
        **_monitoring(settings),
        "overlays/dev/kustomization.yaml": yaml_text(_dev(nodes, settings)),
        "overlays/prod/kustomization.yaml": yaml_text(
            _prod(nodes, settings), comment=_PROD_COMMENT
        ),
    }


def _part(name: str, files: dict[str, list[Any]], **more: Any) -> dict[str, str]:
    texts = {f"{name}/{file}": yaml_text(*documents) for file, documents in files.items()}
    return texts | {f"{name}/kustomization.yaml": yaml_text(kustomization(list(files), **more))}


def _base(settings: Settings) -> dict[str, str]:
    return _part(
        "base",
        {
            "namespace.yaml": [kustomize.namespace(settings)],
            "account.yaml": [kustomize.account(settings)],
            "priorities.yaml": kustomize.priorities(),
            "model_cache.yaml": [kustomize.model_cache(settings)],
            "disruption.yaml": [kustomize.disruption(settings)],
            "network.yaml": kustomize.network(settings),
        },
    )


def _job(nodes: NodeTable, settings: Settings) -> dict[str, str]:
    made = kustomization(
        ["rayjob.yaml"],
        namespace=settings.namespace,
        configMapGenerator=kustomize.manifest_config(),
    )
    return {
        "job/rayjob.yaml": yaml_text(kuberay.ray_job(nodes, settings)),
        "job/edits.jsonl": _EXAMPLE_LINE,
        "job/kustomization.yaml": yaml_text(made, comment=_JOB_COMMENT),
    }


def _monitoring(settings: Settings) -> dict[str, str]:
    rule = kustomize.prometheus_rule(settings, alert_groups())
    generator = {
        "name": "editfarm-dashboard",
        "files": ["editfarm.json"],
        "options": {"labels": {"grafana_dashboard": "1"}, "disableNameSuffixHash": True},
    }
    files = {"monitor.yaml": [kustomize.pod_monitors(settings)], "rules.yaml": [rule]}
    texts = _part("monitoring", files, namespace=settings.namespace, configMapGenerator=[generator])
    return texts | {"monitoring/editfarm.json": json_text(dashboard())}


def _dev(nodes: NodeTable, settings: Settings) -> dict[str, Any]:
    """One node of each kind at most."""
    limits = {
        f"/spec/workerGroupSpecs/{index}/maxReplicas": _DEV_WORKERS
        for index in range(len(nodes.workers))
    }
    return kustomization(
        ["../../base", "../../cluster"],
        patches=[replace("RayCluster", settings.name, limits)],
    )


_PROD_COMMENT = """\
Before you apply it: render with your images by digest (`editfarm cluster render --set image_cpu=…`)
and annotate the service account with the cloud's role that reaches the store. Secrets are made by
hand, once (docs/operations.md)."""


def _prod(nodes: NodeTable, settings: Settings) -> dict[str, Any]:
    """One GPU stays, bought on demand: the first edit of the day need not wait for a machine."""
    kept = next(
        index
        for index, kind in enumerate(nodes.workers)
        if kind.pool == "gpu" and kind.market == "on-demand"
    )
    group = f"/spec/rayClusterConfig/workerGroupSpecs/{kept}"
    return kustomization(
        ["../../base", "../../service", "../../monitoring"],
        patches=[
            replace(
                "RayService", settings.name, {f"{group}/minReplicas": 1, f"{group}/replicas": 1}
            ),
            replace(
                "PersistentVolumeClaim",
                kustomize.CACHE_CLAIM,
                {"/spec/resources/requests/storage": "500Gi"},
            ),
        ],
    )
