"""What `serve_load` does to a server as its clients, and how long that takes."""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import torch

from farm.images import encode_png

FORM = {
    "source_prompt": "a photo of a dotted orange ring in the night",
    "target_prompt": "a photo of a dotted green ring in the night",
    "target_word": "green",
    "parameters": '{"num_steps": 4, "inner_steps": 2}',
}
PICTURE = encode_png(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
_WARM_UP = 2


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {
        "p50_ms": round(percentile(seconds, 0.5) * 1000, 2),
        "p99_ms": round(percentile(seconds, 0.99) * 1000, 2),
        "count": len(seconds),
    }


async def submit(client: httpx2.AsyncClient, seed: int, key: str | None = None) -> httpx2.Response:
    files = {"image": ("a.png", PICTURE, "image/png")}
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return await client.post(
        "/v1/edits", data={**FORM, "seed": str(seed)}, files=files, headers=headers
    )


async def one_by_one(
    client: httpx2.AsyncClient, count: int, first: int, raw: Callable[[int], tuple[float, float]]
) -> dict[str, Any]:
    """Submit and status with one client: what a call costs when nobody else is there.

    What is done without HTTP takes turns with the calls: a machine's clock is another from one
    minute to the next.

    Args:
        client: of the server.
        count: of submissions.
        first: their first seed.
        raw: seconds that a submission of a seed and a look at it take without HTTP.
    """
    submits: list[float] = []
    looks: list[float] = []
    empty: list[float] = []
    without: list[tuple[float, float]] = []
    for seed in range(first, first + count):
        started = time.perf_counter()
        response = await submit(client, seed)
        submits.append(time.perf_counter() - started)
        assert response.status_code == 202, response.text
        place = response.headers["location"]
        started = time.perf_counter()
        assert (await client.get(place)).status_code == 200
        looks.append(time.perf_counter() - started)
        started = time.perf_counter()
        assert (await client.get("/healthz")).status_code == 200
        empty.append(time.perf_counter() - started)
        without.append(raw(seed))
    return {
        "submit": spread(submits),
        "status": spread(looks),
        "healthz": spread(empty),
        "raw": {
            "submit": spread([submitted for submitted, _ in without]),
            "status": spread([looked for _, looked in without]),
        },
    }


async def flood(
    client: httpx2.AsyncClient, seconds: float, clients: int, key: str, first: int
) -> dict[str, Any]:
    """As many submissions as the clients can send; each is accepted durably, or answered 429.

    Args:
        client: of the server.
        seconds: how long.
        clients: at once.
        key: whose edits they are.
        first: seed from which theirs are counted.
    """
    statuses: Counter[int] = Counter()
    accepted: list[str] = []
    times: list[float] = []
    end = time.monotonic() + seconds

    async def one(number: int) -> None:
        seed = first + number * 10**5
        while time.monotonic() < end:
            seed += 1
            started = time.perf_counter()
            response = await submit(client, seed, key)
            times.append(time.perf_counter() - started)
            statuses[response.status_code] += 1
            if response.status_code == 429:
                assert float(response.headers["retry-after"]) > 0
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


async def scenes(client: httpx2.AsyncClient, count: int) -> dict[str, Any]:
    """Edits that really run, one after the other, looked at twenty times a second.

    `around_the_edit` is what passes between acceptance and end that is not the trainer's: the way
    to it, its start, and until the end is seen.
    """
    submits: list[float] = []
    looks: list[float] = []
    own: list[float] = []
    around: list[float] = []
    for seed in range(count + _WARM_UP):
        started = time.perf_counter()
        response = await submit(client, 2 * 10**6 + seed)
        submitted = time.perf_counter() - started
        assert response.status_code == 202, response.text
        place, seen, view = response.headers["location"], [], response.json()
        while view["state"] not in {"done", "failed", "cancelled"}:
            await asyncio.sleep(0.05)
            started = time.perf_counter()
            view = (await client.get(place)).json()
            seen.append(time.perf_counter() - started)
        assert view["state"] == "done", view
        if seed >= _WARM_UP:  # until then trainers' processes are started
            found = (await client.get(f"{place}/result")).json()["provenance"]
            submits.append(submitted)
            looks += seen
            own.append(found["seconds"])
            around.append(view["finished"] - view["created"] - found["seconds"])
    return {
        "submit": spread(submits),
        "status": spread(looks),
        "edit": spread(own),
        "around_the_edit": spread(around),
    }
