"""What the launcher files of all providers have in common."""

import shlex
from typing import Any

from cluster.nodes import NodeKind, label_flag
from cluster.settings import (
    AGENT_PORT,
    DASHBOARD_AGENT_PORT,
    DASHBOARD_PORT,
    GCS_PORT,
    HOME,
    METRICS_PORT,
    MODEL_CACHE,
    MODEL_CACHE_VARIABLES,
    NODE_MANAGER_PORT,
    OBJECT_MANAGER_PORT,
    RUNTIME_ENV_AGENT_PORT,
    WORKER_PORTS,
    Settings,
    environment,
    head_environment,
    model_cache_command,
)

TOKEN_FILE = f"{HOME}/.ray/auth_token"
_OPEN_FILES = 65536
_FIXED_PORTS = (
    f"--object-manager-port={OBJECT_MANAGER_PORT} --node-manager-port={NODE_MANAGER_PORT} "
    f"--metrics-export-port={METRICS_PORT} --dashboard-agent-grpc-port={AGENT_PORT} "
    f"--dashboard-agent-listen-port={DASHBOARD_AGENT_PORT} "
    f"--runtime-env-agent-port={RUNTIME_ENV_AGENT_PORT} "
    f"--min-worker-port={WORKER_PORTS[0]} --max-worker-port={WORKER_PORTS[1]}"
)


def docker_options(kind: NodeKind) -> list[str]:
    """Options of `docker run` that follow from a kind's shape."""
    return [f"--shm-size={kind.shm_gib}g"]


def docker(settings: Settings, head: NodeKind) -> dict[str, Any]:
    """The `docker` part: one image for the head, one with CUDA for workers."""
    variables = environment() | {"RAY_AUTH_TOKEN_PATH": TOKEN_FILE}
    return {
        "head_image": settings.image_cpu,
        "worker_image": settings.image_cuda,
        "container_name": settings.name,
        "pull_before_run": True,
        "run_options": [
            f"--ulimit nofile={_OPEN_FILES}:{_OPEN_FILES}",
            "--security-opt no-new-privileges",
            f"-v /opt/{settings.name}/models:{MODEL_CACHE}",
            *(f"-e {name}={value}" for name, value in variables.items()),
        ],
        "head_run_options": [
            *docker_options(head),
            *(f"-e {name}={value}" for name, value in head_environment().items()),
        ],
    }


def common(settings: Settings) -> dict[str, Any]:
    """Parts that every provider has, in Ray's order."""
    return {
        "auth": {"ssh_user": settings.ssh_user},
        # `ray get-auth-token --generate` on the machine that runs `ray up` writes it
        "file_mounts": {TOKEN_FILE: "~/.ray/auth_token"},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "initialization_commands": [
            f"sudo install -d -o 1000 -g 1000 /opt/{settings.name}/models",
        ],
        "setup_commands": [f"chmod 600 {TOKEN_FILE}"],
        "head_setup_commands": [],
        "worker_setup_commands": [],
    }


def fill_models(settings: Settings) -> str:
    """Command that fills a machine's model cache before Ray starts there.

    It is a start command and no setup command: a machine that was there before, whose setup Ray
    skips, has the cache of another `model_source`.
    """
    values = [f"{name}={value}" for name, value in MODEL_CACHE_VARIABLES.items()]
    return " ".join(["env", *values, shlex.join(model_cache_command(settings))])


def head_start(head: NodeKind, settings: Settings) -> list[str]:
    """Commands that start Ray on the head: no work on it, and its dashboard on loopback alone.

    The head needs the model set too: jobs open it there, before any GPU is.
    """
    start = (
        f"ulimit -n {_OPEN_FILES}; ray start --head --port={GCS_PORT} {_FIXED_PORTS} "
        f"--num-cpus={head.ray_cpus} --num-gpus=0 --labels={label_flag(head)} "
        f"--dashboard-host=127.0.0.1 --dashboard-port={DASHBOARD_PORT} "
        "--autoscaling-config=~/ray_bootstrap_config.yaml"
    )
    return ["ray stop", fill_models(settings), start]


def worker_start(settings: Settings, extra: str = "") -> list[str]:
    """Commands that start Ray on a worker.

    Resources and labels come from the node's kind: the launcher hands them over in variables.
    """
    return [
        "ray stop",
        fill_models(settings),
        f"ulimit -n {_OPEN_FILES}; ray start --address=$RAY_HEAD_IP:{GCS_PORT} {_FIXED_PORTS}"
        + (f" {extra}" if extra else ""),
    ]


def spot_watch(provider: str) -> str:
    """Command that drains this node when its cloud says that it will be taken away."""
    return f"nohup editfarm drain --watch {provider} > /tmp/editfarm-drain.log 2>&1 &"


def node_type(kind: NodeKind, node_config: dict[str, Any]) -> dict[str, Any]:
    """A node type of the launcher."""
    limits = {} if kind.pool == "head" else {"min_workers": kind.min_nodes}
    row: dict[str, Any] = {
        "resources": {"CPU": 0, "GPU": 0} if kind.pool == "head" else kind.resources,
        "labels": kind.labels,
        **limits,
        "max_workers": 0 if kind.pool == "head" else kind.max_nodes,
    }
    if kind.pool != "head":
        row["idle_timeout_s"] = kind.idle_seconds
        row["priority"] = kind.priority
        row["docker"] = {"worker_run_options": docker_options(kind)}
    return row | {"node_config": node_config}
