"""What the HTTP side costs: time of submit and status, submissions kept in a minute, listeners.

    python -m benchmarks.serve_load                         # some two minutes, Serve's own proxy
    python -m benchmarks.serve_load --haproxy --seconds 60  # HAProxy in front, keys as it asks for
    python -m benchmarks.serve_load --json out/bench/serve_load.json

Clients are this process; Ray, proxy, replica and dispatcher are others. The farm runs nothing: what
is measured is the door. On a machine whose cores are busy with other things the times say little.
"""

import asyncio
import json
import os
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import torch
import typer
from ray import serve as ray_serve

from actors.local import local_ray
from farm.errors import EditFailedError
from farm.images import encode_png
from farm.results import EditResult
from farm.runner import PreparedEdit
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file
from serve.deployment import build
from serve.doors import EditFarm
from serve.edits import new_record
from serve.intake import Intake, Submission
from serve.keys import KeyFile, add_key, write_keys
from serve.ledger import Ledger
from serve.limits import RequestLimits, TenantLimits
from serve.records import Priority, new_id
from serve.settings import Settings

Figures = dict[str, Any]

FORM = {
    "source_prompt": "a photo of a dotted orange ring in the night",
    "target_prompt": "a photo of a dotted green ring in the night",
    "target_word": "green",
    "parameters": '{"num_steps": 4, "inner_steps": 2}',
}
app = command_app()
PICTURE = encode_png(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50_ms": round(percentile(seconds, 0.5) * 1000, 2),
        "p99_ms": round(percentile(seconds, 0.99) * 1000, 2),
        "count": len(seconds),
    }


async def submit(client: httpx2.AsyncClient, seed: int) -> httpx2.Response:
    files = {"image": ("a.png", PICTURE, "image/png")}
    return await client.post("/v1/edits", data={**FORM, "seed": str(seed)}, files=files)


async def one_by_one(client: httpx2.AsyncClient, count: int) -> dict[str, Any]:
    """Submit and status with one client: what a call costs when nobody else is there."""
    submits: list[float] = []
    looks: list[float] = []
    empty: list[float] = []
    for seed in range(count):
        started = time.perf_counter()
        response = await submit(client, 10**6 + seed)
        submits.append(time.perf_counter() - started)
        assert response.status_code == 202, response.text
        place = response.headers["location"]
        started = time.perf_counter()
        assert (await client.get(place)).status_code == 200
        looks.append(time.perf_counter() - started)
        started = time.perf_counter()
        assert (await client.get("/healthz")).status_code == 200
        empty.append(time.perf_counter() - started)
    return {"submit": spread(submits), "status": spread(looks), "healthz": spread(empty)}


async def flood(client: httpx2.AsyncClient, seconds: float, clients: int) -> dict[str, Any]:
    """As many submissions as the clients can send; each is accepted durably, or answered 429."""
    statuses: Counter[int] = Counter()
    accepted: list[str] = []
    times: list[float] = []
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        seed = number * 10**5
        while time.monotonic() < end:
            seed += 1
            started = time.perf_counter()
            response = await submit(client, seed)
            times.append(time.perf_counter() - started)
            statuses[response.status_code] += 1
            if response.status_code == 202:
                accepted.append(response.json()["id"])

    started = time.monotonic()
    await asyncio.gather(*(one(number) for number in range(clients)))
    took = time.monotonic() - started
    return {
        "seconds": round(took, 1),
        "clients": clients,
        "accepted_per_second": round(len(accepted) / took, 1),
        "statuses": {str(status): count for status, count in statuses.items()},
        "submit": spread(times),
        "accepted": accepted,
    }


async def listen(client: httpx2.AsyncClient, count: int, name: str) -> dict[str, Any]:
    """Event streams of one edit, all open at once; each must tell of the end."""
    ready, opened = asyncio.Event(), 0
    ended: list[float] = []

    async def one() -> None:
        nonlocal opened
        async with client.stream("GET", f"/v1/edits/{name}/events") as response:
            opened += 1
            if opened == count:
                ready.set()
            text = "".join([part async for part in response.aiter_text()])
        assert "event: failed" in text, text
        ended.append(time.perf_counter())

    listeners = [asyncio.create_task(one()) for _ in range(count)]
    await ready.wait()
    cancelled = time.perf_counter()
    await client.post(f"/v1/edits/{name}/cancel")
    await asyncio.gather(*listeners)
    return {
        "listeners": count,
        "told": len(ended),
        "last_told_after_ms": round((max(ended) - cancelled) * 1000, 1),
    }


class TrivialFarm:
    """Runs nothing: edits fail at once, but those of seed 0, which wait until they are stopped."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()

    def start(self) -> None:
        """It is ready."""

    async def close(self) -> None:
        """Nothing is left behind."""

    async def run(
        self, name: str, prepared: PreparedEdit, *, tenant: str, priority: Priority
    ) -> EditResult:
        """See `serve.doors.EditFarm`."""
        del name, tenant, priority
        if prepared.request.seed == 0:
            await self._stopped.wait()
        raise EditFailedError("nothing is run here")

    async def stop(self, name: str) -> None:
        del name
        self._stopped.set()

    async def progress(self) -> Mapping[str, Mapping[str, Any]]:
        return {}

    async def ready(self) -> bool:
        return True


def trivial_farm(settings: Settings) -> TrivialFarm:
    """What the dispatcher makes instead of a farm of actors."""
    del settings
    return TrivialFarm()


@contextmanager
def served(
    settings: Settings, host: str, port: int, make_farm: Callable[[Settings], EditFarm]
) -> Generator[None, None, None]:
    """The whole application on Ray Serve."""
    with local_ray(num_cpus=4):
        ray_serve.start(http_options={"host": host, "port": port})
        try:
            ray_serve.run(build(settings, make_farm), name="editfarm", route_prefix="/")
            yield
        finally:
            ray_serve.shutdown()


def keys_of_one_tenant(path: Path) -> str:
    """A key without a rate: the queue alone limits."""
    keys, key = add_key(KeyFile(), "load")
    tenant = keys.tenants["load"].model_copy(
        update={"limits": TenantLimits(edits_per_minute=None, max_queued=None)}
    )
    write_keys(path, keys.model_copy(update={"tenants": {"load": tenant}}))
    return key


async def measure(url: str, key: str, seconds: float, clients: int, listeners: int) -> Figures:
    """All figures, one after the other."""
    limits = httpx2.Limits(max_connections=listeners + clients + 8)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        base_url=url, timeout=120, limits=limits, headers=headers
    ) as client:
        assert (await client.get("/readyz")).status_code == 200
        for seed in range(10):
            await submit(client, 10**9 + seed)  # whatever is slow the first time
        alone = await one_by_one(client, 200)
        name = (await submit(client, 0)).json()["id"]
        heard = await listen(client, listeners, name)
        flooded = await flood(client, seconds, clients)
    return {"one_by_one": alone, "listeners": heard, "flood": flooded}


def lost(store: str, accepted: list[str]) -> int:
    """Accepted edits that have no record."""
    ledger = Ledger(open_store(store))
    return sum(ledger.read("load", name) is None for name in accepted)


def raw_milliseconds(folder: Path, count: int = 200) -> dict[str, float]:
    """What accepting costs without HTTP: the check of an edit and its three durable writes."""
    ledger = Ledger(open_store(str(folder / "raw")))
    intake = Intake(ledger.store, open_model_set("scenes"), RequestLimits(), {})
    times: list[float] = []
    for seed in range(count):
        fields = {**FORM, "parameters": json.loads(FORM["parameters"]), "seed": seed}
        submission = Submission(fields, PICTURE)
        started = time.perf_counter()
        record = new_record("load", new_id("e"), submission, intake.check("load", submission))
        ledger.accept(record, PICTURE, None)
        times.append(time.perf_counter() - started)
    return spread(times)


@app.command(cls=FarmCommand)
def serve_load(
    seconds: Annotated[float, typer.Option(help="Of the flood.")] = 60.0,
    clients: Annotated[int, typer.Option(help="Of the flood, at once.")] = 16,
    listeners: Annotated[int, typer.Option(help="Event streams at once.")] = 200,
    queue: Annotated[int, typer.Option(help="Longest queue; what is above is refused.")] = 10_000,
    haproxy: Annotated[bool, typer.Option(help="HAProxy in front.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it here.")] = None,
) -> None:
    """Measure the HTTP side on a farm that runs nothing."""
    if json_file is not None:
        check_file(json_file)
    if haproxy:  # before Ray starts, for all its processes
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        key = keys_of_one_tenant(folder / "keys.json")
        settings = Settings(
            store=str(folder / "store"), keys_file=folder / "keys.json", max_queue=queue
        )
        raw = raw_milliseconds(folder)
        port = free_port()
        say(f"starting Serve with {'HAProxy' if haproxy else 'its own proxy'}")
        with served(settings, "127.0.0.1", port, trivial_farm):
            url = f"http://127.0.0.1:{port}"
            figures = asyncio.run(measure(url, key, seconds, clients, listeners))
        accepted = figures["flood"].pop("accepted")
        figures["flood"]["lost"] = lost(settings.store, accepted)
    submitted = figures["one_by_one"]["submit"]
    figures = {
        "proxy": "haproxy" if haproxy else "serve",
        "raw_accept": raw,
        **figures,
        "submit_overhead_p50_ms": round(submitted["p50_ms"] - raw["p50_ms"], 2),
    }
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures, indent=1).encode())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    app()
