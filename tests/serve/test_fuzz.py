"""Nothing that is sent makes the server fail, hang or grow."""

import gc

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as budget
from schemathesis.checks import not_a_server_error

from farm.errors import EditFailedError
from serve.inline import InlineFarm
from tests.serve.conftest import PICTURE, opened, store_of
from tests.serve.fuzzing import requests
from tests.serve.live import live_server

_MOST_GROWTH = 200 * 2**20
"""Bytes; allocators keep some of what was used at once."""


class Refusing(InlineFarm):
    """A farm that runs nothing: what is fuzzed is the door."""

    def __init__(self, store):
        super().__init__(None, store)

    async def run(self, name, prepared, *, tenant, priority):
        raise EditFailedError("nothing is run here")


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
            response = await farm.client.request(**request)
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            failed = response.status_code >= 500 and response.json()["code"] != "edit_failed"
            assert not failed, (request, response.text)
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
@pytest.mark.timeout(1800)
async def test_ten_thousand_inputs_leave_no_trace_in_memory(open_to_images):
    statuses, (early, late) = await send(open_to_images, seed=1, count=10_000)
    assert sum(statuses.values()) == 10_000
    assert late - early < _MOST_GROWTH


def test_the_openapi_document_is_kept_to(open_to_images):
    with live_server(open_to_images, lambda: Refusing(store_of(open_to_images))) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        tried = 0
        for result in schema.get_all_operations():
            operation = result.ok()

            @operation_budget
            @schemathesis_given(operation)
            def attempt(case):
                nonlocal tried
                tried += 1
                case.call_and_validate(checks=[not_a_server_error], timeout=20)

            attempt()
        assert tried >= 10 * 15


operation_budget = budget(
    max_examples=10,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


def schemathesis_given(operation):
    """Cases of one operation as a hypothesis test."""
    from hypothesis import given

    return given(case=operation.as_strategy())
