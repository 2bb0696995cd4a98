"""docs/http.md and the README: requests run as written, and what they name exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from farm.backbones.networks import load_networks
from farm.images import decode_image
from farm.zoo.model_sets import open_model_set
from serve.inline import InlineFarm
from serve.limits import RequestLimits
from serve.settings import Settings
from tests.serve.conftest import store_of
from tests.serve.live import live_server

from farm.backbones.host import OperationHost  # isort: skip

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "http.md"
README = ROOT / "README.md"
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.DOTALL)
PICTURE = ROOT / "examples" / "demo" / "001-colour-green.png"


@pytest.fixture(scope="module")
def scenes_host():
    models = open_model_set("scenes")
    return OperationHost(load_networks(models.folder, models.spec, "cpu"))


@pytest.fixture(scope="module")
def scenes_server(scenes_host, tmp_path_factory):
    settings = Settings(store=str(tmp_path_factory.mktemp("docs") / "store"))
    with live_server(settings, lambda: InlineFarm(scenes_host, store_of(settings))) as url:
        yield url


@pytest.mark.parametrize(("kind", "text"), BLOCK.findall(DOCUMENT.read_text(encoding="utf-8")))
def test_snippets_run_as_written(scenes_server, tmp_path, kind, text):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = text.replace("http://127.0.0.1:8000", scenes_server)  # the one thing that differs
    program = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
    ran = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    edited = decode_image((tmp_path / "green.png").read_bytes()).image
    original = decode_image(PICTURE.read_bytes()).image
    assert edited.shape == original.shape
    assert (edited - original).abs().max() > 0.1


def test_the_readmes_requests_are_accepted_as_written(scenes_host, tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    lines = [text for _, text in BLOCK.findall(README.read_text(encoding="utf-8"))]
    requests = [text for text in lines if "curl " in text]
    assert requests
    impatient = RequestLimits(max_wait_seconds=1)  # with default parameters an edit takes long
    settings = Settings(store=str(tmp_path / "store"), limits=impatient)
    with live_server(settings, lambda: InlineFarm(scenes_host, store_of(settings))) as url:
        for text in requests:
            written = text.replace("http://127.0.0.1:8000", url)
            ran = subprocess.run(
                ["bash", "-euc", written], cwd=tmp_path, capture_output=True, text=True, timeout=120
            )
            assert ran.returncode == 0, ran.stdout + ran.stderr
            edit = json.loads(ran.stdout)
            assert edit["state"] in {"queued", "running", "done"}
            httpx2.post(f"{url}/v1/edits/{edit['id']}/cancel")


async def test_every_route_is_documented(farm):
    text = DOCUMENT.read_text(encoding="utf-8").replace("{id}", "{}").replace("{name}", "{}")
    documented = set(re.findall(r"/v1/[a-z/{}_]+|/[a-z]+z\b|/metrics", text))
    paths = (await farm.client.get("/openapi.json")).json()["paths"]
    for path in paths:
        plain = re.sub(r"\{\w+\}", "{}", path)
        if plain not in ("/metrics", "/healthz", "/v1/links/{}/{}", "/v1/models/{}"):
            assert plain in documented, path


async def test_every_error_of_the_document_has_the_one_shape(farm):
    document = (await farm.client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            if path.startswith("/v1"):
                assert {
                    "401",
                    "422",
                    "429" if method == "post" and path == "/v1/edits" else "500",
                } <= set(about["responses"]), (path, method)
            for status, response in about["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
