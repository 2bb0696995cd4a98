"""Nothing that is sent makes the server fail, hang or grow."""

import asyncio
import gc
import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as budget
from schemathesis.checks import not_a_server_error

from farm.errors import InvalidRequestError
from serve.inline import InlineFarm
from tests.serve.conftest import PICTURE, opened, store_of
from tests.serve.fuzzing import requests
from tests.serve.live import live_server

OUT = Path(__file__).parents[2] / "out"
_HUNG_SECONDS = 60
_MOST_GROWTH = 200 * 2**20
"""Bytes; allocators keep some of what was used at once."""


class Refusing(InlineFarm):
    """A farm that runs nothing: what is fuzzed is the door."""

    def __init__(self, store):
        super().__init__(None, store)

    async def run(self, name, prepared, *, tenant, priority):
        raise InvalidRequestError("nothing is run here")


@pytest.fixture
def open_to_images(settings, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "ball.png").write_bytes(PICTURE)
    return settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})


async def send(settings, seed, count):
    """How many answers had which status; memory in bytes, after a tenth and at the end."""
    statuses: dict[int, int] = {}
    memory: list[int] = []
    manifest = store_of(settings.model_copy(update={"store": settings.image_stores["photos"]}))
    async with opened(settings, None, farm=Refusing(store_of(settings))) as farm:
        for number, request in enumerate(requests(seed, count)):
            if "manifest" in request:
                manifest.put("fuzz.jsonl", request.pop("manifest"))
            async with asyncio.timeout(_HUNG_SECONDS):
                response = await farm.client.request(**request)
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            assert response.status_code < 500, (request, response.text)
            if response.status_code >= 400 and request["method"] != "HEAD":
                assert response.json()["status"] == response.status_code
            if number in (count // 10, count - 1):
                gc.collect()
                memory.append(psutil.Process().memory_info().rss)
    return statuses, memory


async def test_no_input_makes_the_server_fail(open_to_images):
    statuses, _ = await send(open_to_images, seed=0, count=300)
    assert {202, 404, 422} <= set(statuses)  # some get through, and most do not


@pytest.mark.chaos
@pytest.mark.timeout(3600)
async def test_ten_thousand_inputs_leave_no_trace_in_memory(open_to_images):
    started = time.monotonic()
    statuses, (early, late) = await send(open_to_images, seed=1, count=10_000)
    growth = late - early
    note("requests", statuses, growth, time.monotonic() - started)
    assert sum(statuses.values()) == 10_000
    assert growth < _MOST_GROWTH


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(10, id="short"),
        pytest.param(200, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(3600)]),
    ],
)
def test_the_openapi_document_is_kept_to(open_to_images, examples):
    started = time.monotonic()
    statuses: Counter[int] = Counter()
    memory: list[int] = []
    with live_server(open_to_images, lambda: Refusing(store_of(open_to_images))) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        for round_of in (examples // 10, examples - examples // 10):
            for operation in operations:

                @budget(
                    max_examples=max(round_of, 1),
                    deadline=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                    derandomize=True,
                    database=None,
                )
                @given(case=operation.as_strategy())
                def attempt(case):
                    response = case.call_and_validate(checks=[not_a_server_error], timeout=20)
                    statuses[response.status_code] += 1

                attempt()
            gc.collect()
            memory.append(psutil.Process().memory_info().rss)
    tried, growth = statuses.total(), memory[1] - memory[0]
    assert tried >= 15 * examples
    assert growth < _MOST_GROWTH
    if examples > 10:
        note("document", statuses, growth, time.monotonic() - started)


def note(name, statuses, growth, seconds):
    """Leave the figures of a long run for docs/http.md."""
    OUT.mkdir(exist_ok=True)
    about = {
        "day": datetime.now(UTC).date().isoformat(),
        "inputs": sum(statuses.values()),
        "statuses": {str(status): statuses[status] for status in sorted(statuses)},
        "seconds": round(seconds),
        "growth_mb": round(growth / 1e6, 1),
    }
    (OUT / f"fuzz-{name}.json").write_text(json.dumps(about, indent=1))
