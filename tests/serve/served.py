"""A whole farm on Ray Serve for tests: its own Ray, one application, a port of its own."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx2
import psutil
from ray import serve as ray_serve
from ray.serve._private import api as serve_api

from serve.deployment import build
from serve.settings import Settings
from serve.studio.deployment import StudioSettings, build_studio
from serve.studio.panels import ROOT
from serve.tuning import tune_serve
from tests.rays import own_ray
from tests.serve.conftest import PICTURE, WORDS

T = TypeVar("T")

QUICK = '{"num_steps": 3, "inner_steps": 2}'
LONG = '{"num_steps": 10, "inner_steps": 30}'

serve_api.HTTP_PROXY_TIMEOUT = 240  # Serve's own 60 s pass on a machine that is busy


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def served(
    settings: Settings, *, num_cpus: int = 4, studio: StudioSettings | None = None
) -> Iterator[httpx2.Client]:
    """A client of the application, which is ready; nothing of it is left afterwards."""
    port = free_port()
    tune_serve()
    with own_ray(num_cpus=num_cpus):
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port})
        try:
            ray_serve.run(build(settings), name="editfarm", route_prefix="/")
            if studio is not None:
                ray_serve.run(build_studio(studio), name="studio", route_prefix=ROOT)
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until(lambda: client.get("/readyz").status_code == 200)
                yield client
        finally:
            ray_serve.shutdown()


def wait_until(condition: Callable[[], T], seconds: float = 240.0) -> T:
    """What the condition gives once it holds; asked again and again, as clients do."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx2.TransportError):
            found = condition()
            if found:
                return found
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def process(title: str) -> psutil.Process:
    """The one process below this one whose title has these words, as Ray titles its workers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(child.cmdline()):
                found.append(child)
    assert len(found) == 1, f"{title}: {found}"
    return found[0]


def kill(title: str) -> None:
    """End that process as a crash does."""
    process(title).kill()


def submit(client: httpx2.Client, seed: int, parameters: str = QUICK) -> str:
    """An accepted edit's id, however often the door is closed meanwhile; it is one edit."""

    def post() -> str | None:
        response = client.post(
            "/v1/edits",
            data={**WORDS, "parameters": parameters, "seed": str(seed)},
            files={"image": ("a.png", PICTURE, "image/png")},
            headers={"Idempotency-Key": f"{seed}-{len(parameters)}"},
        )
        assert response.status_code in {200, 202, 500, 502, 503}, response.text
        return response.json()["id"] if response.status_code < 300 else None

    return wait_until(post)


def ended(client: httpx2.Client, name: str) -> dict[str, Any]:
    """The edit at its end, however often the door is closed meanwhile."""

    def look() -> dict[str, Any] | None:
        response = client.get(f"/v1/edits/{name}", headers={"Prefer": "wait=5"})
        edit = response.json() if response.status_code == 200 else {}
        return edit if edit.get("state") in {"done", "failed", "cancelled"} else None

    return wait_until(look)
