"""What becomes of accepted edits when things fail around them."""

import asyncio
import os

import pytest

from farm.errors import BackboneLostError, EditDivergedError, StoreError
from farm.storage.layout import online_key, pending_key
from serve.gate import Gate
from serve.ledger import Ledger
from serve.limits import TenantLimits
from serve.records import new_id
from tests.serve.conftest import PICTURE, Scripted, Stuck, ended, opened, store_of, until

pytestmark = pytest.mark.usefixtures("impatient")


async def test_what_was_accepted_before_everything_stopped_is_done_afterwards(settings, host):
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        names = [(await farm.submit(seed=seed)).json()["id"] for seed in range(3)]
        records = [farm.services.ledger.read("default", name) for name in names]
        assert {record.state for record in records} <= {"queued", "running"}
    async with opened(settings, host) as farm:
        for name in names:
            assert (await ended(farm, name)).state == "done"
        assert list(farm.services.ledger.pending()) == []


async def test_nothing_is_begun_by_a_dispatcher_that_closes(settings, host, caplog):
    one_at_once = settings.model_copy(update={"max_in_flight": 1})
    async with opened(one_at_once, host, farm=Stuck(host, store_of(settings))) as farm:
        names = [(await farm.submit(seed=seed)).json()["id"] for seed in range(3)]
        await until(lambda: getattr(farm.dispatcher._farm, "begun", False))
    states = [farm.services.ledger.read("default", name).state for name in names]
    assert sorted(states) == ["queued", "queued", "running"]
    assert not [record for record in caplog.records if record.name == "editfarm.serve"]


async def test_two_dispatchers_at_once_commit_each_edit_once(settings, host):
    async with opened(settings, host) as one, opened(settings, host) as two:
        names = [(await one.submit(seed=seed)).json()["id"] for seed in range(4)]
        for farm in (one, two):
            for name in names:
                assert (await ended(farm, name)).state == "done"
        store = one.services.ledger.store
        commits = [k for k in store.list("tenants/default/edits/") if k.endswith("COMMIT.json")]
        assert len(commits) == 4

        def attempts():
            keys = store.list("tenants/default/edits/")
            return {key.rpartition("/")[0] for key in keys if "attempts" in key}

        for _ in range(1500):  # an edit has ended when the winner has committed
            if len(attempts()) == 4:
                break
            await asyncio.sleep(0.02)
        assert len(attempts()) == 4  # who lost took its files away


async def test_a_lost_backbone_delays_an_edit_and_no_more(settings, host):
    lost = [BackboneLostError("gone: try again"), StoreError("gone: try again")]
    scripted = Scripted(host, store_of(settings), *lost)
    async with opened(settings, host, farm=scripted) as farm:
        name = (await farm.submit()).json()["id"]
        record = await ended(farm, name)
        assert (record.state, record.attempts) == ("done", 3)


async def test_an_edit_that_fails_says_why_and_can_be_tried_again(settings, host):
    scripted = Scripted(host, store_of(settings), EditDivergedError("the loss is not finite"))
    async with opened(settings, host, farm=scripted) as farm:
        name = (await farm.submit()).json()["id"]
        record = await ended(farm, name)
        assert record.state == "failed"
        assert record.failure.model_dump() == {
            "code": "edit_diverged",
            "detail": "the loss is not finite",
        }
        await farm.client.post(f"/v1/edits/{name}/retry")
        assert (await ended(farm, name)).state == "done"


async def test_a_retry_that_meets_the_edits_end_is_not_lost(settings, host, monkeypatch):
    scripted = Scripted(host, store_of(settings), EditDivergedError("the loss is not finite"))
    loop, settle = asyncio.get_running_loop(), Ledger.settle
    async with opened(settings, host, farm=scripted) as farm:

        def retried_first(ledger, record, *, keep_image):
            monkeypatch.setattr(Ledger, "settle", settle)
            retry = farm.client.post(f"/v1/edits/{record.id}/retry")
            assert asyncio.run_coroutine_threadsafe(retry, loop).result().status_code == 202
            return settle(ledger, record, keep_image=keep_image)

        monkeypatch.setattr(Ledger, "settle", retried_first)
        name = (await farm.submit()).json()["id"]
        await until(lambda: len(scripted.asked) == 2)
        assert (await ended(farm, name)).state == "done"


async def test_an_edit_that_always_takes_its_surroundings_down_is_given_up(
    settings, host, monkeypatch
):
    monkeypatch.setattr("serve.attempts._MAX_ATTEMPTS", 3)
    lost = [BackboneLostError("gone: try again")] * 9
    scripted = Scripted(host, store_of(settings), *lost)
    async with opened(settings, host, farm=scripted) as farm:
        record = await ended(farm, (await farm.submit()).json()["id"])
        assert (record.state, record.failure.code) == ("failed", "given_up")
        assert len(scripted.asked) == 3


async def test_what_nobody_foresaw_fails_an_edit_once(settings, host, caplog):
    scripted = Scripted(host, store_of(settings), ZeroDivisionError("secret"))
    async with opened(settings, host, farm=scripted) as farm:
        record = await ended(farm, (await farm.submit()).json()["id"])
        assert (record.state, record.failure.code) == ("failed", "edit_failed")
        assert "secret" not in record.failure.detail
        assert "secret" in caplog.text
        assert len(scripted.asked) == 1


async def test_what_breaks_the_dispatchers_own_work_is_given_up(
    settings, host, monkeypatch, caplog
):
    monkeypatch.setattr("serve.attempts._MAX_ATTEMPTS", 2)
    async with opened(settings, host) as farm:

        def explode(*_):
            raise ZeroDivisionError("secret")

        monkeypatch.setattr("serve.intake.Intake.prepare", explode)
        record = await ended(farm, (await farm.submit()).json()["id"])
        assert (record.state, record.failure.code) == ("failed", "given_up")


async def test_an_edit_that_hangs_is_ended(settings, host, monkeypatch):
    monkeypatch.setattr("serve.attempts._NAG_SECONDS", 0.01)
    monkeypatch.setattr("serve.attempts._STOP_GRACE", 0.02)
    settings = settings.model_copy(update={"max_seconds": 0.02})
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        record = await ended(farm, (await farm.submit()).json()["id"])
        assert (record.state, record.failure.code) == ("failed", "too_long")
        assert record.failure.detail == "it ran longer than 0.02 s"


async def test_an_edit_that_runs_too_long_and_stops_when_asked_has_failed(
    settings, host, monkeypatch
):
    monkeypatch.setattr("serve.attempts._NAG_SECONDS", 0.01)
    settings = settings.model_copy(update={"max_seconds": 0.05})
    async with opened(settings, host) as farm:
        long = '{"num_steps": 50, "inner_steps": 400}'
        record = await ended(farm, (await farm.submit(parameters=long)).json()["id"])
        assert (record.state, record.failure.code) == ("failed", "too_long")


async def test_an_edit_that_waits_past_a_cancel_and_a_restart_stays_cancelled(settings, host):
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        name = (await farm.submit()).json()["id"]
        async for record, _ in farm.services.watcher.follow("default", name):
            if record.state == "running":
                break
        assert (await farm.client.post(f"/v1/edits/{name}/cancel")).json()["cancel_requested"]
    async with opened(settings, host) as farm:
        assert (await ended(farm, name)).state == "cancelled"


async def test_a_wish_to_cancel_that_reached_only_the_record_is_found(settings, host):
    async with opened(settings, host) as farm:
        long = '{"num_steps": 50, "inner_steps": 400}'
        name = (await farm.submit(parameters=long)).json()["id"]
        async for record, _ in farm.services.watcher.follow("default", name):
            if record.state == "running":
                break
        ledger = farm.services.ledger
        ledger.change("default", name, lambda r: r.model_copy(update={"cancel_requested": True}))
        assert (await ended(farm, name)).state == "cancelled"


async def test_a_marker_without_a_record_is_swept_when_it_is_old(settings, host):
    ledger = Ledger(store_of(settings))
    old, young, line = new_id("e"), new_id("e"), new_id("e", now=1.0)

    for name in (old, young, line):  # the id of a line tells the age of its job, which says nothing
        ledger.store.put(online_key("default", "images", name), PICTURE)
        ledger.store.put(pending_key("default", name), b"")
    os.utime(ledger.store.root / pending_key("default", old), (1.0, 1.0))
    ledger.store.put(pending_key("default", "strange"), b"")
    async with opened(settings, host) as farm:
        await farm.done()
        # it goes on looking around, whatever else lies there
        await until(lambda: [left.id for left in ledger.pending()] == [young, line, "strange"])
        images = list(ledger.store.list("tenants/default/online/images/"))
        assert [key.rpartition("/")[2] for key in images] == [young, line]


async def test_a_full_queue_answers_429_and_loses_nothing(settings, host):
    settings = settings.model_copy(update={"max_queue": 3, "max_in_flight": 1})
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        answers = await asyncio.gather(*(farm.submit(seed=seed) for seed in range(8)))
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [202] * 3 + [429] * 5
        names = {answer.json()["id"] for answer in answers if answer.status_code == 202}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 429)
    async with opened(settings, host) as farm:
        for name in names:
            assert (await ended(farm, name)).state == "done"


async def test_a_tenants_running_edits_are_bounded(settings, host, monkeypatch):

    monkeypatch.setattr(Gate, "limits_of", lambda *_: TenantLimits(max_running=1))
    scripted = Stuck(host, store_of(settings))
    async with opened(settings, host, farm=scripted) as farm:
        names = [(await farm.submit(seed=seed)).json()["id"] for seed in range(2)]
        async for record, _ in farm.services.watcher.follow("default", names[0]):
            if record.state == "running":
                break
        snapshot = await farm.dispatcher.snapshot()
        assert (len(snapshot.running), snapshot.queued) == (1, 1)


async def test_a_damaged_record_does_not_hide_what_was_accepted_after_it(settings, host):
    async with opened(settings, host, farm=Stuck(host, store_of(settings))) as farm:
        names = [(await farm.submit(seed=seed)).json()["id"] for seed in range(2)]
        store = farm.services.ledger.store
        store.put(online_key("default", "records", min(names)), b"{")
    async with opened(settings, host) as farm:
        assert (await ended(farm, max(names))).state == "done"


async def test_an_edit_that_was_accepted_before_takes_no_more_room(settings, host, monkeypatch):
    """A key's second request is the same edit: its picture is counted once."""
    limits = TenantLimits(max_stored_bytes=10**6)
    monkeypatch.setattr(Gate, "limits_of", lambda *_: limits)
    told = []
    async with opened(settings, host) as farm:
        accept = farm.dispatcher.accept

        async def listening(tenant, name, priority, stored_bytes):
            told.append(stored_bytes)
            await accept(tenant, name, priority, stored_bytes)

        monkeypatch.setattr(farm.services.edits._door, "accept", listening, raising=False)
        monkeypatch.setattr(Ledger, "claimed", lambda *_: None)  # both came at the same moment
        for _ in range(2):
            assert (await farm.submit(headers={"idempotency-key": "a"})).status_code == 202
        await until(lambda: len(told) == 2)
    assert told == [len(PICTURE), 0]


async def test_storage_is_counted_from_what_lies_there(settings, host, monkeypatch):

    async with opened(settings, host) as farm:
        used = (await farm.done())["id"]
    limits = TenantLimits(max_stored_bytes=len(PICTURE))
    monkeypatch.setattr(Gate, "limits_of", lambda *_: limits)
    async with opened(settings, host) as farm:
        assert (await farm.submit(seed=1)).json()["code"] == "storage_full"
        await farm.client.delete(f"/v1/edits/{used}")
        assert (await farm.submit(seed=1)).status_code == 202


async def test_storage_that_could_not_be_counted_is_counted_for_the_next_edit(
    settings, host, monkeypatch
):
    ids, failures = Ledger.ids, [StoreError("gone: try again")]

    def failing(ledger, tenant, **options):
        if failures:
            raise failures.pop()
        return ids(ledger, tenant, **options)

    async with opened(settings, host) as farm:
        await farm.done()
    limits = TenantLimits(max_stored_bytes=len(PICTURE))
    monkeypatch.setattr(Gate, "limits_of", lambda *_: limits)
    monkeypatch.setattr(Ledger, "ids", failing)
    async with opened(settings, host) as farm:
        assert (await farm.submit(seed=1)).status_code == 503
        assert (await farm.submit(seed=1)).json()["code"] == "storage_full"


async def test_a_damaged_record_is_not_counted_and_keeps_nobody_out(settings, host, monkeypatch):
    monkeypatch.setattr(Gate, "limits_of", lambda *_: TenantLimits(max_stored_bytes=10**6))
    async with opened(settings, host) as farm:
        store = farm.services.ledger.store
        store.put(online_key("default", "records", new_id("e", now=1.0)), b"{")
        assert (await farm.submit()).status_code == 202


async def test_outputs_are_counted_once_however_often_their_edit_is_announced(settings, host):
    async with opened(settings, host) as farm:
        name = (await farm.done())["id"]
        for _ in range(3):
            await until(lambda: not farm.dispatcher._running)
            await farm.dispatcher.accept("default", name, "interactive", 0)
        await until(lambda: not farm.dispatcher._running)
        kept = farm.services.ledger.read("default", name).stored_bytes
        assert farm.dispatcher._admission._accounts["default"].stored == kept
