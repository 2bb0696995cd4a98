"""What the HTTP side costs: time of submit and status, submissions kept in a minute, listeners.

    python -m benchmarks.serve_load                 # some three minutes, Serve's own proxy
    python -m benchmarks.serve_load --haproxy       # HAProxy in front, keys as it asks for
    python -m benchmarks.serve_load --op trivial    # without a farm: the door alone
    python -m benchmarks.serve_load --json out/bench/serve_load.json

Clients are this process; Ray, proxy, replica and dispatcher are others. With the trivial op the
farm computes nothing, and what is measured is the door; with the scenes op real edits run behind
it. Trivial edits end at once, so the dispatcher starts and ends as many as come in, or take a
second each (`behind_seconds`), so it starts as many as fit. On a machine whose cores are busy with
other things the times say little.
"""

import asyncio
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from ray import serve as ray_serve

from actors.local import local_ray
from benchmarks.loads.serve_clients import (
    FORM,
    PICTURE,
    flood,
    listen,
    one_by_one,
    scenes,
    submit,
)
from farm.errors import EditFailedError
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
from serve.ray_farm import ray_farm
from serve.records import Priority, new_id
from serve.settings import Settings
from serve.tuning import tune_serve

Figures = dict[str, Any]


class Op(StrEnum):
    """What runs behind the door."""

    TRIVIAL = "trivial"
    SCENES = "scenes"
    BOTH = "both"


_READY_LOOKS = 1200
_BOUNDED_SECONDS = 10.0
_BOUNDED_PER_MINUTE = 120
_TAKES_A_SECOND = 5 * 10**8  # seeds from here to the next
_ENDS_AT_ONCE = 10**9
app = command_app()


class TrivialFarm:
    """Computes nothing: edits fail, at once or as their seeds say; that of seed 0 when stopped."""

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
        elif _TAKES_A_SECOND <= prepared.request.seed < _ENDS_AT_ONCE:
            await asyncio.sleep(1)
        raise EditFailedError("nothing is run here")

    async def stop(self, name: str) -> None:
        del name
        self._stopped.set()

    async def progress(self, looked_at: Collection[str] = ()) -> Mapping[str, Mapping[str, Any]]:
        del looked_at
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
    with local_ray(num_cpus=6):
        ray_serve.start(http_options={"host": host, "port": port})
        try:
            ray_serve.run(build(settings, make_farm), name="editfarm", route_prefix="/")
            yield
        finally:
            ray_serve.shutdown()


def two_tenants(path: Path) -> dict[str, str]:
    """Keys of a tenant whom the queue alone limits, and of one with a rate."""
    keys, found = KeyFile(), dict[str, str]()
    for name, rate in (("load", None), ("bounded", _BOUNDED_PER_MINUTE)):
        keys, found[name] = add_key(keys, name)
        limits = TenantLimits(edits_per_minute=rate, max_queued=None)
        tenant = keys.tenants[name].model_copy(update={"limits": limits})
        keys = keys.model_copy(update={"tenants": {**keys.tenants, name: tenant}})
    write_keys(path, keys)
    return found


@asynccontextmanager
async def ready_client(
    url: str, key: str, connections: int
) -> AsyncGenerator[httpx2.AsyncClient, None]:
    """A client of a server that is ready."""
    limits = httpx2.Limits(max_connections=connections)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(
        base_url=url, timeout=120, limits=limits, headers=headers
    ) as client:
        for _ in range(_READY_LOOKS):
            if (await client.get("/readyz")).status_code == 200:
                break
            await asyncio.sleep(0.5)
        yield client


async def at_the_door(
    url: str,
    keys: Mapping[str, str],
    raw: Callable[[int], tuple[float, float]],
    *,
    seconds: float,
    clients: int,
    listeners: int,
) -> Figures:
    """All figures of the trivial op, one after the other."""
    async with ready_client(url, keys["load"], listeners + clients + 8) as client:
        for seed in range(10):
            await submit(client, _ENDS_AT_ONCE + seed)  # whatever is slow the first time
        alone = await one_by_one(client, 200, 10**6, raw)
        name = (await submit(client, 0)).json()["id"]
        heard = await listen(client, listeners, name)
        flooded = await flood(client, seconds, clients, keys["load"], 0)
        bounded = await flood(client, _BOUNDED_SECONDS, clients, keys["bounded"], 10**8)
        behind = {
            "one_by_one": await one_by_one(client, 200, _TAKES_A_SECOND, raw),
            "flood": await flood(client, seconds, clients, keys["load"], _TAKES_A_SECOND + 10**6),
        }
    return {
        "one_by_one": alone,
        "listeners": heard,
        "flood": flooded,
        "bounded": bounded,
        "behind_seconds": behind,
    }


async def with_scenes(url: str, key: str, edits: int) -> Figures:
    """Figures of the scenes op."""
    async with ready_client(url, key, 8) as client:
        return await scenes(client, edits)


def lost(store: str, tenant: str, accepted: list[str]) -> int:
    """Accepted edits that have no record."""
    ledger = Ledger(open_store(store))
    return sum(ledger.read(tenant, name) is None for name in accepted)


def trivial_figures(
    settings: Settings, keys: Mapping[str, str], folder: Path, **amounts: Any
) -> Figures:
    """The door alone; `amounts` are those of `at_the_door`."""
    port = free_port()
    with served(settings, "127.0.0.1", port, trivial_farm):
        url = f"http://127.0.0.1:{port}"
        figures = asyncio.run(at_the_door(url, keys, without_http(folder), **amounts))
    floods = (figures["flood"], "load"), (figures["bounded"], "bounded")
    for flooded, tenant in (*floods, (figures["behind_seconds"]["flood"], "load")):
        flooded["lost"] = lost(settings.store, tenant, flooded.pop("accepted"))
    return figures


def scenes_figures(settings: Settings, key: str, edits: int) -> Figures:
    """The door before a farm that runs edits."""
    port = free_port()
    with served(settings, "127.0.0.1", port, ray_farm):
        return asyncio.run(with_scenes(f"http://127.0.0.1:{port}", key, edits))


def overhead(found: Figures) -> Figures:
    """Milliseconds that HTTP, proxy, replica and dispatcher add to what is done anyway."""
    return {
        name: {
            share: round(found[name][share] - found["raw"][name][share], 2)
            for share in ("p50_ms", "p99_ms")
        }
        for name in ("submit", "status")
    }


def without_http(folder: Path) -> Callable[[int], tuple[float, float]]:
    """Checks an edit and writes it in three durable writes, and reads it: seconds of both."""
    ledger = Ledger(open_store(str(folder / "raw")))
    intake = Intake(ledger.store, open_model_set("scenes"), RequestLimits(), {})

    def once(seed: int) -> tuple[float, float]:
        fields = {**FORM, "parameters": json.loads(FORM["parameters"]), "seed": seed}
        submission = Submission(fields, PICTURE)
        started = time.perf_counter()
        record = new_record("load", new_id("e"), submission, intake.check("load", submission))
        ledger.accept(record, PICTURE, None)
        written = time.perf_counter()
        ledger.read("load", record.id)
        return written - started, time.perf_counter() - written

    return once


@app.command(cls=FarmCommand)
def serve_load(
    seconds: Annotated[float, typer.Option(help="Of the flood.")] = 60.0,
    clients: Annotated[int, typer.Option(help="Of the flood, at once.")] = 16,
    listeners: Annotated[int, typer.Option(help="Event streams at once.")] = 200,
    queue: Annotated[int, typer.Option(help="Longest queue; what is above is refused.")] = 10_000,
    op: Annotated[Op, typer.Option(help="What runs behind the door.")] = Op.BOTH,
    edits: Annotated[int, typer.Option(help="Of the scenes op.")] = 12,
    haproxy: Annotated[bool, typer.Option(help="HAProxy in front.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it here.")] = None,
) -> None:
    """Measure the HTTP side: on a farm that runs nothing, and on the scenes'."""
    if json_file is not None:
        check_file(json_file)
    tune_serve()
    if haproxy:  # before Ray starts, for all its processes
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
        os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        keys = two_tenants(folder / "keys.json")
        settings = Settings(
            store=str(folder / "store"), keys_file=folder / "keys.json", max_queue=queue
        )
        figures: Figures = {"proxy": "haproxy" if haproxy else "serve"}
        say(f"starting Serve with {'HAProxy' if haproxy else 'its own proxy'}")
        if op is not Op.SCENES:
            amounts = {"seconds": seconds, "clients": clients, "listeners": listeners}
            found = trivial_figures(settings, keys, folder, **amounts)
            behind = found["behind_seconds"]
            behind["overhead"] = overhead(behind["one_by_one"])
            figures |= {**found, "overhead": overhead(found["one_by_one"])}
        if op is not Op.TRIVIAL:
            real = settings.model_copy(update={"store": str(folder / "scenes")})
            figures["scenes"] = scenes_figures(real, keys["load"], edits)
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures, indent=1).encode())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    app()
