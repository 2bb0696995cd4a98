"""What a deployment sets: images, places, store, and the ports of the farm."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

GCS_PORT = 6379
CLIENT_PORT = 10001
DASHBOARD_PORT = 8265
METRICS_PORT = 8080
SERVE_PORT = 8000
OBJECT_MANAGER_PORT = 8076
NODE_MANAGER_PORT = 8077
AGENT_PORT = 8078
RUNTIME_ENV_AGENT_PORT = 8079
DASHBOARD_AGENT_PORT = 8266
WORKER_PORTS = (11000, 11999)
"""First and last port of worker processes; fixed, so that a firewall can name them."""

USER_ID = 1000
HOME = "/home/ray"
MODEL_CACHE = "/models"
API_KEYS = "/keys/keys.json"
"""Tenants and digests of their keys, from a secret."""
SETTLE_SECONDS = 90
"""From the notice of a machine's end to its end: for checkpoints. AWS gives 120 s, GCP 30 s."""

CUDA_MAJOR = 13
"""Of the CUDA that torch of constraints.txt brings along."""
GPU_DRIVER = 580
"""Oldest branch of NVIDIA's driver that runs it; the driver is the host's, no image has it."""
_GOOGLES_IMAGES = "projects/deeplearning-platform-release/global/images/family"

Text = Annotated[str, Field(min_length=1)]


class Settings(BaseModel):
    """All that differs from one deployment to the next.

    The defaults name nobody's registry, bucket or project; the committed files hold them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text = "editfarm"
    namespace: Text = "editfarm"
    image_cpu: Text = "registry.example.com/editfarm:0.1.0-cpu"
    image_cuda: Text = "registry.example.com/editfarm:0.1.0-cuda"
    """Name them by digest (`…@sha256:…`) in production: a tag may move."""
    ray_version: Text = "2.60.0"
    python_version: Text = "3.11"
    store: Text = "s3://editfarm-example/farm"
    model_set: Text = "scenes"
    """A name, or a folder under the model cache."""
    model_source: Text = "scenes"
    """Where the model cache is filled from: a set of released checkpoints (`sd15+regions`), or a
    folder or s3:// prefix with a `model_set.json`."""
    model_mirror: Text | None = None
    """Folder or s3:// prefix with released checkpoints, asked in the hub's place."""
    aws_region: Text = "us-east-1"
    aws_zones: Text = "us-east-1a,us-east-1b"
    aws_ami: Text = "ami-00000000000000000"
    """Image of all machines on AWS, of your region; the default is none. It must have Docker with
    NVIDIA's runtime and a driver of branch 580 or newer, as AWS' "Deep Learning Base OSS Nvidia
    Driver GPU AMI (Ubuntu 22.04)" has. Ray's own default, `latest_dlami`, is years older."""
    gcp_project: Text = "editfarm-example"
    gcp_region: Text = "us-central1"
    gcp_zone: Text = "us-central1-a"
    gcp_image_cpu: Text = f"{_GOOGLES_IMAGES}/common-cpu-ubuntu-2204"
    gcp_image_cuda: Text = f"{_GOOGLES_IMAGES}/common-cu129-ubuntu-2204-nvidia-580"
    """Images of the machines, by family. That of GPU machines must have Docker with NVIDIA's
    runtime and a driver of branch 580 or newer: the last number of the family's name. Of CUDA it
    needs nothing."""
    head_ip: Text = "192.0.2.10"
    worker_ips: tuple[str, ...] = ("192.0.2.11", "192.0.2.12")
    """On-premise machines; the defaults are addresses for documentation."""
    ssh_user: Text = "ubuntu"

    @field_validator("aws_ami")
    @classmethod
    def _is_an_id(cls, ami: str) -> str:
        if re.fullmatch("ami-([0-9a-f]{8}|[0-9a-f]{17})", ami) is None:
            raise ValueError(
                f"{ami!r} is not the id of an image: give that of a Deep Learning Base AMI of your "
                f"region (ami-…) with NVIDIA driver {GPU_DRIVER} or newer, which CUDA {CUDA_MAJOR} "
                "needs; latest_dlami is Ray's name for one that is far too old"
            )
        return ami

    @field_validator("gcp_image_cuda")
    @classmethod
    def _has_the_driver(cls, image: str) -> str:
        named = re.search("-nvidia-([0-9]+)", image)
        if named is not None and int(named[1]) < GPU_DRIVER:
            raise ValueError(
                f"{image!r} has NVIDIA driver {named[1]}: take one with {GPU_DRIVER} or newer, "
                f"which CUDA {CUDA_MAJOR} needs"
            )
        return image


SETTINGS = Settings()


SERVE_LOOPS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
"""One event loop in a replica of Serve's instead of three: nothing of ours holds a loop up, and
every request and answer would change threads on its way (docs/performance.md)."""


MODEL_CACHE_VARIABLES = {"HF_HOME": f"{MODEL_CACHE}/.hub"}
"""Of the process that fills the model cache: on the same disk, what needs no conversion is shared
with the hub's cache, not copied."""


def model_cache_command(settings: Settings) -> list[str]:
    """What fills the model cache of a machine, or says that it is filled."""
    mirror = [] if settings.model_mirror is None else ["--mirror", settings.model_mirror]
    run = ["python", "-m", "jobs.model_cache"]
    return [*run, settings.model_source, "--to", MODEL_CACHE, *mirror]


def environment() -> dict[str, str]:
    """Variables of every process of the farm, wherever it runs. No secret is among them."""
    return SERVE_LOOPS | {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "EDITFARM_LOG": "json",
        # trainer tasks are named after edits: a name must not become a label
        "RAY_metric_cardinality_level": "low",
    }


def head_environment() -> dict[str, str]:
    """Further variables of the head."""
    return {"RAY_enable_autoscaler_v2": "1"}
