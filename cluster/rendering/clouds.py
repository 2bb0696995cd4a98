"""Launcher files: AWS, Google Cloud, and machines that are there already."""

from typing import Any

from cluster.nodes import NodeKind, NodeTable
from cluster.rendering.launcher import (
    common,
    docker,
    docker_options,
    head_start,
    node_type,
    spot_watch,
    worker_start,
)
from cluster.rendering.text import yaml_text
from cluster.settings import GPU_DRIVER, Settings

_AWS_COMMENT = """\
ray up cluster/aws.yaml. Needed: two instance profiles, NAME-head (start and end instances, pass the
role below, reach the store) and NAME-store (reach the store); keys of the store are nowhere.
The image must be set: --set aws_ami=ami-…, with NVIDIA driver {driver} or newer (docs/cluster.md).
The dashboard listens on the head's loopback: `ray dashboard cluster/aws.yaml` makes a tunnel."""

_GCP_COMMENT = """\
ray up cluster/gcp.yaml. Needed: a service account NAME-store that may use the store and, for the
head, start and end instances. The store must honour S3's conditional writes (docs/cluster.md)."""

_LOCAL_COMMENT = """\
ray up cluster/onprem.yaml. Ray knows one type of node here, so a machine tells its pool by itself:
GPUs make it one of pool gpu. Every machine stays in the farm: nothing is scaled."""


def aws(nodes: NodeTable, settings: Settings) -> str:
    """The launcher's file for AWS."""
    types = {kind.name: node_type(kind, _aws_node(kind, settings)) for kind in nodes.kinds}
    return yaml_text(
        _cluster(
            nodes,
            settings,
            {
                "type": "aws",
                "region": settings.aws_region,
                "availability_zone": settings.aws_zones,
                "cache_stopped_nodes": False,  # a stopped spot instance would come back stale
                "security_group": {"GroupName": settings.name},
            },
            types,
            "aws",
        ),
        comment=_AWS_COMMENT.format(driver=GPU_DRIVER),
    )


def gcp(nodes: NodeTable, settings: Settings) -> str:
    """The launcher's file for Google Cloud."""
    types = {kind.name: node_type(kind, _gcp_node(kind, settings)) for kind in nodes.kinds}
    return yaml_text(
        _cluster(
            nodes,
            settings,
            {
                "type": "gcp",
                "region": settings.gcp_region,
                "availability_zone": settings.gcp_zone,
                "project_id": settings.gcp_project,
            },
            types,
            "gcp",
        ),
        comment=_GCP_COMMENT,
    )


def onprem(nodes: NodeTable, settings: Settings) -> str:
    """The launcher's file for machines that are there already."""
    gpu = next(kind for kind in nodes.workers if kind.pool == "gpu")
    pool = "$(nvidia-smi -L > /dev/null 2>&1 && echo gpu || echo trainers)"
    options = docker(settings, nodes.head)
    options["worker_run_options"] = docker_options(gpu)
    count = len(settings.worker_ips)
    return yaml_text(
        {
            "cluster_name": settings.name,
            "max_workers": count,
            "provider": {
                "type": "local",
                "head_ip": settings.head_ip,
                "worker_ips": list(settings.worker_ips),
            },
            "docker": options,
            **common(settings),
            "head_start_ray_commands": head_start(nodes.head, settings),
            "worker_start_ray_commands": worker_start(
                settings, f"--labels=farm/pool={pool},farm/market=on-demand,farm/kind=onprem"
            ),
        },
        comment=_LOCAL_COMMENT,
    )


def _cluster(
    nodes: NodeTable,
    settings: Settings,
    provider: dict[str, Any],
    types: dict[str, Any],
    cloud: str,
) -> dict[str, Any]:
    return {
        "cluster_name": settings.name,
        "max_workers": nodes.max_workers,
        "upscaling_speed": 4.0,  # a job's first trainers ask for all nodes at once
        "idle_timeout_minutes": 5,
        "provider": provider,
        "docker": docker(settings, nodes.head),
        "available_node_types": types,
        "head_node_type": nodes.head.name,
        **common(settings),
        "head_start_ray_commands": head_start(nodes.head, settings),
        "worker_start_ray_commands": [*worker_start(settings), spot_watch(cloud)],
    }


def _aws_node(kind: NodeKind, settings: Settings) -> dict[str, Any]:
    role = "head" if kind.pool == "head" else "store"
    config: dict[str, Any] = {
        "InstanceType": kind.aws_type,
        "ImageId": settings.aws_ami,
        "IamInstanceProfile": {"Name": f"{settings.name}-{role}"},
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/sda1",
                "Ebs": {"VolumeSize": kind.disk_gib, "VolumeType": "gp3", "Encrypted": True},
            }
        ],
        # one hop more than the host's, for a role that is asked for from a container
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    if kind.market == "spot":
        config["InstanceMarketOptions"] = {"MarketType": "spot"}
    return config


def _gcp_node(kind: NodeKind, settings: Settings) -> dict[str, Any]:
    account = f"{settings.name}-store@{settings.gcp_project}.iam.gserviceaccount.com"
    config: dict[str, Any] = {
        "machineType": kind.gcp_type,
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "type": "PERSISTENT",
                "initializeParams": {
                    "diskSizeGb": kind.disk_gib,
                    # the default, pd-standard, is refused by G2; Ray does not complete this name
                    "diskType": f"zones/{settings.gcp_zone}/diskTypes/pd-balanced",
                    "sourceImage": (
                        settings.gcp_image_cuda if kind.gpus else settings.gcp_image_cpu
                    ),
                },
            }
        ],
        "serviceAccounts": [
            {"email": account, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
        ],
    }
    if kind.market == "spot":
        config["scheduling"] = {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "onHostMaintenance": "TERMINATE",
        }
    elif kind.gpus:
        config["scheduling"] = {"onHostMaintenance": "TERMINATE"}
    return config
