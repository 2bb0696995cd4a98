"""What goes with a deleted edit, and what stays for another that is not finished."""

import asyncio
import json

import pytest

from farm.errors import EditDivergedError, StoreError
from farm.storage.layout import input_key
from serve.inline import InlineFarm
from tests.serve.conftest import QUICK, opened, store_of, until

AUTO = json.dumps({"settings": {"style_diffusion": QUICK}})


class Gated(InlineFarm):
    """A farm where further edits stand in their middle until they may go on."""

    def __init__(self, host, store, error=None):
        super().__init__(host, store)
        self.first, self.gate, self.error = True, asyncio.Event(), error

    async def run(self, name, prepared, *, tenant, priority):
        waits, self.first = not self.first, False
        if waits:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        return await super().run(name, prepared, tenant=tenant, priority=priority)


@pytest.fixture
async def farm(settings, host, request):
    gated = Gated(host, store_of(settings), getattr(request, "param", None))
    async with opened(settings, host, farm=gated) as found:
        yield found


async def running(farm, **fields):
    """An edit that has begun and stands."""
    name = (await farm.submit(**fields)).json()["id"]
    ledger = farm.services.ledger
    await until(lambda: ledger.read("default", name).state == "running")
    return name


async def finished(farm, name):
    farm.dispatcher._farm.gate.set()
    response = await farm.client.get(f"/v1/edits/{name}", headers={"Prefer": "wait=30"})
    return response.json()


async def delete(farm, name):
    response = await farm.client.delete(f"/v1/edits/{name}")
    assert response.status_code == 204, response.text


def stages(farm):
    keys = farm.services.ledger.store.list("tenants/default/stages/")
    return {key.split("/")[3] for key in keys}


def left(farm):
    return list(farm.services.ledger.store.list("tenants/"))


async def test_what_a_running_edit_needs_stays_until_that_is_deleted(farm):
    one = await farm.done()
    needed = stages(farm)
    two = await running(farm, target_prompt="a green ball")
    await delete(farm, one["id"])
    record = farm.services.ledger.read("default", two)
    assert stages(farm) == needed
    assert farm.services.ledger.store.exists(input_key("default", record.image_digest))
    ended = await finished(farm, two)
    assert ended["state"] == "done"
    result = (await farm.client.get(f"/v1/edits/{two}/result")).json()
    assert result["provenance"]["stages_made"] == []  # the first edit's was there
    assert (await farm.client.get(f"/v1/edits/{two}/image")).status_code == 200
    await delete(farm, two)
    assert left(farm) == []


async def test_a_running_edit_of_the_picture_keeps_no_stage_but_its_own(farm):
    one = await farm.done()
    two = await running(farm, seed=1)
    await delete(farm, one["id"])
    assert stages(farm) == set()
    assert (await finished(farm, two))["state"] == "done"
    assert (await farm.client.get(f"/v1/edits/{two}/image")).status_code == 200
    await delete(farm, two)
    assert left(farm) == []


@pytest.mark.parametrize("farm", [EditDivergedError("a loss is nan")], indirect=True)
async def test_what_was_kept_for_an_edit_goes_with_it_though_it_failed(farm):
    one = await farm.done()
    two = await running(farm, target_prompt="a green ball")
    await delete(farm, one["id"])
    assert stages(farm)
    assert (await finished(farm, two))["state"] == "failed"
    await delete(farm, two)
    assert left(farm) == []


async def test_an_auto_edit_leaves_nothing(farm):
    one = await farm.done(method="auto", parameters=AUTO)
    await delete(farm, one["id"])
    assert left(farm) == []


async def test_an_edit_asked_for_by_name_outlives_the_auto_edit_that_did_it_first(farm):
    farm.dispatcher._farm.gate.set()
    one = await farm.done(method="auto", parameters=AUTO)
    two = await farm.done(parameters=json.dumps(QUICK))
    assert two["reused"]
    await delete(farm, one["id"])
    assert (await farm.client.get(two["outputs"]["edited.png"])).status_code == 200
    assert stages(farm)
    await delete(farm, two["id"])
    assert left(farm) == []


async def test_an_auto_edit_that_runs_keeps_the_edit_that_it_builds_on(farm):
    one = await farm.done(parameters=json.dumps(QUICK))
    two = await running(farm, method="auto", parameters=AUTO)
    await delete(farm, one["id"])
    commits = [key for key in left(farm) if "/edits/" in key and key.endswith("COMMIT.json")]
    assert [key.split("/")[3] for key in commits] == [one["edit_id"]]
    assert (await finished(farm, two))["state"] == "done"
    await delete(farm, two)
    assert left(farm) == []


async def test_a_damaged_choice_can_be_deleted(farm):
    one = await farm.done(method="auto", parameters=AUTO)
    store = farm.services.ledger.store
    (key,) = [k for k in left(farm) if one["edit_id"] in k and k.endswith("result.json")]
    store.put(key, b"{}")
    await delete(farm, one["id"])
    assert (await farm.client.get(f"/v1/edits/{one['id']}")).status_code == 404


async def test_a_stage_that_the_store_does_not_delete_is_deleted_when_asked_again(
    farm, monkeypatch
):
    name = (await farm.done())["id"]
    store = type(farm.services.ledger.store)
    delete_object, failures = store.delete, [StoreError("gone: try again")]

    def failing(self, key):
        if "/stages/" in key and failures:
            raise failures.pop()
        delete_object(self, key)

    monkeypatch.setattr(store, "delete", failing)
    assert (await farm.client.delete(f"/v1/edits/{name}")).status_code == 503
    await delete(farm, name)
    assert left(farm) == []
