import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import torch

from farm.images import encode_png
from farm.storage.opening import open_store
from serve.api import build_app
from serve.assembly import open_dispatcher, open_services
from serve.dispatcher import Dispatcher
from serve.inline import InlineFarm
from serve.services import Services
from serve.settings import Settings
from tests.tiny import tiny_networks, write_tiny_set

from farm.backbones.host import OperationHost  # isort: skip

QUICK = {"num_steps": 3, "inner_steps": 2}
WORDS = {"source_prompt": "a red ball", "target_prompt": "a blue ball"}


def picture(seed: int = 0, height: int = 24, width: int = 20) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    return encode_png(torch.rand(3, height, width, generator=generator))


PICTURE = picture()


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    """Tiny edits take less time than the pauses between two looks at real ones."""
    monkeypatch.setattr("serve.watching._FRESH_SECONDS", 0.01)
    monkeypatch.setattr("serve.watching._RUNNING_PAUSE", 0.02)
    monkeypatch.setattr("serve.watching._WAITING_PAUSE", 0.02)
    monkeypatch.setattr("serve.dispatcher._SNAPSHOT_SECONDS", 0.01)


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "tiny"
    folder.mkdir()
    write_tiny_set(folder)
    return folder


@pytest.fixture(scope="session")
def host():
    return OperationHost(tiny_networks())


@dataclass
class Farm:
    """One dispatcher and one replica in this process."""

    client: httpx2.AsyncClient
    services: Services
    dispatcher: Dispatcher
    settings: Settings

    async def submit(self, **fields: Any) -> httpx2.Response:
        """A form with the picture, small enough to be quick."""
        headers = fields.pop("headers", {})
        image = fields.pop("image", PICTURE)
        form = {**WORDS, "parameters": '{"num_steps": 3, "inner_steps": 2}', **fields}
        files = {"image": ("a.png", image, "image/png")}
        return await self.client.post("/v1/edits", data=form, files=files, headers=headers)

    async def done(self, **fields: Any) -> dict[str, Any]:
        """An edit that was waited for."""
        headers = {"Prefer": "wait=30", **fields.pop("headers", {})}
        response = await self.submit(headers=headers, **fields)
        assert response.status_code == 200, response.text
        return response.json()


@contextlib.asynccontextmanager
async def opened(settings, host, *, farm=None, headers=None, raise_app_exceptions=True):
    """A farm on these networks; closed at the end, as a machine that is switched off."""
    dispatcher = open_dispatcher(settings, farm or InlineFarm(host, store_of(settings)))
    await dispatcher.start()
    services = open_services(settings, dispatcher)
    transport = httpx2.ASGITransport(
        app=build_app(services), raise_app_exceptions=raise_app_exceptions
    )
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8000", headers=headers, timeout=60
    ) as client:
        try:
            yield Farm(client, services, dispatcher, settings)
        finally:
            await dispatcher.close()


async def until(condition):
    """Ask again and again, as a client does; the test's own timeout is the end."""
    while True:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        await asyncio.sleep(0.01)


def store_of(settings):
    return open_store(settings.store)


@pytest.fixture
def settings(tmp_path, tiny_set):
    return Settings(store=str(tmp_path / "store"), model_set=str(tiny_set))


@pytest.fixture
async def farm(settings, host):
    async with opened(settings, host) as found:
        yield found


class Stuck(InlineFarm):
    """A farm whose machine is switched off half-way: nothing ever comes back."""

    async def run(self, name, prepared, *, tenant, priority):
        self.begun = True
        await asyncio.Event().wait()


class Scripted(InlineFarm):
    """A farm that first fails as it is told, and counts what it was asked to run."""

    def __init__(self, host, store, *failures):
        super().__init__(host, store)
        self.failures, self.asked = list(failures), []

    async def run(self, name, prepared, *, tenant, priority):
        self.asked.append((name, priority))
        if self.failures:
            raise self.failures.pop(0)
        return await super().run(name, prepared, tenant=tenant, priority=priority)


@pytest.fixture
def impatient(monkeypatch):
    """A dispatcher looks around, and tries again, at once."""
    monkeypatch.setattr("serve.dispatcher._RESCAN_SECONDS", 0.05)
    monkeypatch.setattr("serve.dispatcher._LONGEST_PAUSE", 0.05)


async def ended(farm, name):
    record, _ = await farm.services.watcher.wait("default", name, 30)
    return record
