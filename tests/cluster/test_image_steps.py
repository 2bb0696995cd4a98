"""The Dockerfile's own commands, run without Docker as far as that goes.

Its RUN lines are taken from the file and run by bash in a folder that holds what COPY copies, with
paths of the image moved there. Not run: the base image, the installation of all packages (gigabytes
that the index has under the same pins), users, GPUs.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.cluster.dockerfile_rules import Line, stages

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
SITE = Path(torch.__file__).parents[1]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def lines_of(name: str) -> list[Line]:
    (lines,) = [lines for _, stage, lines in stages(DOCKERFILE) if stage == name]
    return lines


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder that stands for the image's root."""
    root = tmp_path_factory.mktemp("image")
    (root / "src").mkdir()
    (root / "opt").mkdir()
    return root


def run(image: Path, command: str, folder: Path) -> None:
    for place in ("/opt/editfarm", "/wheel"):
        command = command.replace(place, f"{image}{place}")
    own = Path(sys.executable).parent  # has the `python` that the base image has
    path = f"{image}/opt/editfarm/bin:{own}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PIP_NO_CACHE_DIR": "1"}
    program = ["bash", "-eo", "pipefail", "-c", command]
    ran = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def build(image: Path, name: str) -> None:
    """COPY and RUN of a stage, in order."""
    for line in lines_of(name):
        if line.word == "COPY" and "--from" not in line.rest:
            *sources, target = line.rest.split()
            for source in sources:
                place = image / "src" / (target if len(sources) == 1 and "." not in target else "")
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, place, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, image / "src")
        elif line.word == "RUN":
            run(image, line.rest, image / "src")


def test_the_wheel_is_built_and_its_commands_run(image, tmp_path):
    """Stages `tools` and `wheel` whole; then the wheel beside packages of the same pins."""
    build(image, "tools")
    runtime = (image / "src" / "runtime.txt").read_text().splitlines()
    assert not any(line.startswith(("pytest", "ruff", "playwright")) for line in runtime)
    assert any(line.startswith("torch==") for line in runtime)
    build(image, "wheel")
    (wheel,) = (image / "wheel").iterdir()
    assert wheel.stat().st_size > 10 * 2**20  # the scenes' weights are in it
    last = [line.rest for line in lines_of("packages-cpu") if line.word == "RUN"][-1]
    run(image, last, image / "src")
    (packages,) = (image / "opt/editfarm/lib").glob("python3*/site-packages")
    (packages / "beside.pth").write_text(f"{SITE}\n")
    command = [image / "opt/editfarm/bin/editfarm", "models", "list"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "RAY_AUTH_MODE": "token"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "scenes" in ran.stdout
    where = "import farm, pathlib; print(pathlib.Path(farm.__file__).parents[1])"
    python = image / "opt/editfarm/bin/python"
    ran = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True)
    assert Path(ran.stdout.strip()) == packages  # the wheel's, not the working tree's
