"""The Dockerfile and the compose file, as far as they can be judged without an engine."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cluster.rendering.images import DEVELOPMENT
from cluster.rendering.targets import render
from cluster.settings import SETTINGS
from jobs.cluster import serve_config
from tests.cluster.dockerfile_rules import instructions, stages, violations

ROOT = Path(__file__).parents[2]
FILES = render("compose", serve_config=serve_config())
DOCKERFILE = FILES["Dockerfile"]
COMPOSE = yaml.safe_load(FILES["compose.yaml"])
SERVICE_KEYS = {
    "build",
    "image",
    "command",
    "entrypoint",
    "environment",
    "secrets",
    "shm_size",
    "ulimits",
    "security_opt",
    "cap_drop",
    "ports",
    "volumes",
    "healthcheck",
    "depends_on",
    "restart",
}


def test_the_dockerfile_breaks_no_rule():
    assert list(violations(DOCKERFILE)) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM python\nUSER 1", "DL3006"),
        ("FROM python:latest\nUSER 1", "DL3007"),
        ("FROM python:3.11\nUSER 1", "DL3006"),
        ("FROM python:3.11.1", "DL3002"),
        ("FROM python:3.11.1\nUSER 1\nUSER root", "DL3002"),
        ("FROM python:3.11.1\nWORKDIR app\nUSER 1", "DL3000"),
        ("FROM python:3.11.1\nADD a /a\nUSER 1", "DL3020"),
        ("FROM python:3.11.1\nCOPY a b\nUSER 1", "DL3045"),
        ("FROM python:3.11.1\nUSER 1\nCMD run", "DL3025"),
        ("FROM python:3.11.1\nRUN sudo x\nUSER 1", "DL3004"),
        ("FROM python:3.11.1\nRUN cd /x && y\nUSER 1", "DL3003"),
        ("FROM python:3.11.1\nRUN a | b\nUSER 1", "DL4006"),
        ("FROM python:3.11.1\nRUN apt-get install -y x\nUSER 1", "DL3015"),
        ("FROM python:3.11.1\nRUN pip install torch\nUSER 1", "DL3013"),
        ("FROM python:3.11.1\nRUN pip install torch==1\nUSER 1", "DL3042"),
        ("FROM python:3.11.1\nENV API_TOKEN=abc\nUSER 1", "secret"),
    ],
)
def test_the_rules_catch_what_breaks_them(text, rule):
    assert any(found.startswith(rule) for found in violations(text))


def test_both_targets_run_as_the_user_of_the_pods():
    for name in ("cpu", "cuda"):
        (lines,) = [lines for _, stage, lines in stages(DOCKERFILE) if stage == name]
        assert lines[-1].word == "USER"
        assert lines[-1].rest == "1000:1000"
        copied = [line.rest for line in lines if line.word == "COPY"]
        assert copied == [f"--from=packages-{name} /opt/editfarm /opt/editfarm"]


def test_login_shells_find_the_farms_commands(tmp_path):
    """Ray's launcher runs its commands in them, and /etc/profile sets another PATH."""
    (lines,) = [lines for _, stage, lines in stages(DOCKERFILE) if stage == "runtime"]
    commands = [line.rest for line in lines if line.word == "RUN"]
    parts = [part for command in commands for part in command.split("&&")]
    (words,) = [part for part in parts if "/etc/profile.d/" in part]
    profile = tmp_path / "editfarm.sh"
    written = words.replace("/etc/profile.d/editfarm.sh", str(profile))
    subprocess.run(["bash", "-c", written], check=True, timeout=30)
    says = f"PATH=/usr/local/bin:/usr/bin:/bin; . {profile}; echo $PATH"
    shown = subprocess.run(["sh", "-c", says], capture_output=True, text=True, timeout=30)
    assert shown.stdout.strip() == "/opt/editfarm/bin:/usr/local/bin:/usr/bin:/bin"


def test_the_launcher_finds_what_it_copies_and_reaches_workers_with():
    (lines,) = [lines for _, stage, lines in stages(DOCKERFILE) if stage == "runtime"]
    (installed,) = [line.rest for line in lines if "apt-get install" in line.rest]
    assert {"rsync", "openssh-client"} <= set(installed.split())


def test_what_is_copied_is_there_and_let_in():
    kept = {line[1:] for line in FILES["Dockerfile.dockerignore"].splitlines() if line[0] == "!"}
    for line in instructions(DOCKERFILE):
        if line.word == "COPY" and "--from" not in line.rest:
            *sources, _ = line.rest.split()
            for source in sources:
                assert (ROOT / source).exists()
                assert source in kept
    assert FILES["Dockerfile.dockerignore"].splitlines()[1] == "*"


def test_versions_are_those_of_the_constraints():
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert SETTINGS.ray_version == pinned["ray"]
    assert f"python:{SETTINGS.python_version}." in DOCKERFILE
    assert {"setuptools", "torch", "torchvision"} <= pinned.keys()


def needed(name: str, seen: set[str], extras: frozenset[str] = frozenset()) -> set[str]:
    """A distribution and all that it needs here, by canonical name."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")
        )
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if wanted and (key not in seen or requirement.extras):
            seen.add(key)
            needed(requirement.name, seen, frozenset(requirement.extras))
    return seen


def test_packages_left_out_of_images_are_needed_by_none_that_stays():
    wanted = needed(
        "editfarm", set(), frozenset({"serve", "ui", "s3", "cluster", "train", "trace"})
    )
    assert {"torch", "ray", "diffusers", "fsspec", "jaxtyping"} <= wanted
    assert wanted.isdisjoint(DEVELOPMENT)
    present = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert set(DEVELOPMENT) <= present  # names that are none would leave nothing out


def test_services_have_known_keys_and_pinned_images():
    for name, service in COMPOSE["services"].items():
        assert service.keys() <= SERVICE_KEYS, name
        if "build" not in service:
            assert re.search(r":(v?\d+\.\d+\.\d+|RELEASE\.[\dTZ-]+)$", service["image"])


def test_ports_are_open_to_this_machine_alone():
    for service in COMPOSE["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_what_services_name_is_there():
    services = COMPOSE["services"]
    for service in services.values():
        for other in service.get("depends_on", []):
            assert other in services
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert source.removeprefix("./") in FILES, source
            else:
                assert source in COMPOSE["volumes"]
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"]


def test_no_secret_is_written_and_all_are_asked_for():
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|KEY_ID", name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?.*\}", value), name


def test_prometheus_scrapes_the_farm_and_loads_the_alerts():
    config = yaml.safe_load(FILES["monitoring/prometheus.yaml"])
    assert config["scrape_configs"][0]["static_configs"][0]["targets"] == ["farm:8080"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]]
    for name in config["rule_files"]:
        assert f"/etc/prometheus/{name}" in mounted
