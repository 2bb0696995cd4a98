"""Waiting a moment for callers that were just answered."""

import asyncio

import pytest

from actors.batcher import Batcher
from actors.gathering import Gathering
from actors.lanes import Item
from actors.limits import Limits
from actors.sender import ANYBODY, Sender
from actors.waiting_room import WaitingRoom
from tests.actors.hosts import Clock, SteppingHost, call, queued

USER = Sender("user", "interactive")


async def test_two_halves_that_would_take_turns_become_one_batch() -> None:
    sizes = await _sizes(gather=0.1)
    assert sizes.count(4) >= 28  # of 30: before they met, and after the first two ended


async def test_without_it_they_take_turns_for_good() -> None:
    sizes = await _sizes(gather=0.0)
    assert set(sizes) == {2}


async def test_an_interactive_call_ends_a_wait() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 1e6}, clock)  # a tenth of that is for ever
    batcher = Batcher(host.run_step, Limits(gather=0.1), clock=clock)
    await batcher.answer_all([call(value, "toy.train") for value in range(2)])
    alone = await queued(batcher, call(7, "toy.train"))
    assert len(host.batches) == 1  # it waits for the other of the two
    async with asyncio.timeout(5):
        await batcher.answer_all([call(9, "toy.look")], USER)
        assert not alone.done()
        await batcher.answer_all([call(8, "toy.train")])
        await alone
    await batcher.close()
    assert host.batches[1:] == [("toy.look", [9]), ("toy.train", [7, 8])]


async def test_waits_that_interactive_calls_cut_short_are_not_held_against_those_awaited() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 1e6}, clock)
    batcher = Batcher(host.run_step, Limits(gather=0.1, linger=0.0), clock=clock)
    await batcher.answer_all([call(value, "toy.train") for value in range(2)])
    alone = await queued(batcher, call(7, "toy.train"))
    async with asyncio.timeout(5):
        for value in range(5):  # more than the vain waits after which none is tried
            await batcher.answer_all([call(value, "toy.look")], USER)
            for _ in range(5):
                await asyncio.sleep(0)  # the wait begins again
        assert not alone.done()
        await batcher.answer_all([call(8, "toy.train")])
        await alone
    await batcher.close()


async def test_work_of_another_key_is_not_held_up() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 1e6, "toy.other": 1.0}, clock)
    batcher = Batcher(host.run_step, Limits(gather=0.1), clock=clock)
    await batcher.answer_all([call(value, "toy.train") for value in range(2)])
    async with asyncio.timeout(5):
        await batcher.answer_all([call(7, "toy.train"), call(8, "toy.other")])
    await batcher.close()


async def test_calls_that_are_computed_alone_wait_for_nobody() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 1e6}, clock)
    batcher = Batcher(host.run_step, Limits(gather=0.1), clock=clock)
    alone = [call(value, "toy.train", alone=True) for value in range(2)]
    async with asyncio.timeout(5):
        await batcher.answer_all(alone)
        await batcher.answer_all(alone[:1])
    await batcher.close()
    assert [values for _, values in host.batches] == [[0], [1], [0]]


async def test_a_batcher_closes_while_it_waits() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 1e6}, clock)
    batcher = Batcher(host.run_step, Limits(gather=0.1), clock=clock)
    await batcher.answer_all([call(value, "toy.train") for value in range(2)])
    waiting = await queued(batcher, call(7, "toy.train"))
    async with asyncio.timeout(5):
        await batcher.close()
        await waiting


def test_a_wait_is_as_long_as_the_gaps_seen_and_never_longer_than_allowed() -> None:
    gathering = Gathering()
    assert gathering.patience(0.0, 1.0) == 0  # nobody was answered
    for step in range(20):
        gathering.answered(1, 10.0 * step)
        gathering.arrived(10.0 * step + 0.02)
    gathering.answered(2, 300.0)
    assert gathering.patience(300.0, 0.1) == pytest.approx(0.08)  # three gaps and a fifth
    assert gathering.patience(300.03, 0.1) == pytest.approx(0.05)
    assert gathering.patience(300.0, 0.05) == pytest.approx(0.05)
    assert gathering.patience(300.2, 0.1) == 0
    gathering.arrived(300.01)
    gathering.arrived(300.01)
    assert gathering.patience(300.01, 0.1) == 0  # all are back


@pytest.mark.parametrize(
    ("seen", "gather", "seconds"),
    [
        ({1: 1.0, 4: 1.0}, 0.1, 1.0),  # whoever joins costs nothing: up to what a batch costs
        ({1: 1.0, 4: 4.0}, 0.1, 0.4),  # nothing is shared: a tenth of four
        ({1: 1.0, 4: 2.5}, 0.1, 0.5),  # half a second of each batch is shared
        ({4: 1.0}, 0.1, 0.1),  # nothing is known of what is shared
        ({1: 1.0, 4: 1.0}, 0.0, None),
    ],
)
async def test_a_wait_may_cost_what_it_can_save(
    seen: dict[int, float], gather: float, seconds: float | None
) -> None:
    room = WaitingRoom(Limits(gather=gather))
    one = call(1, "toy.train")
    item = Item(one, ANYBODY, one.key, asyncio.get_running_loop().create_future(), 0.0)
    record = room.records.of(item)
    for size, cost in seen.items():
        record.cost.seen(size, cost)
    record.gathering.answered(4, 0.0)
    room.arrived(item, 0.9)  # so late did somebody come; three times that is more than any wait
    wait = room.to_gather(0.0)
    assert (wait and wait[1]) == (None if seconds is None else pytest.approx(seconds, rel=1e-6))


def test_waits_that_bring_too_few_come_to_rest_and_are_tried_again() -> None:
    gathering = Gathering()

    def wait(comes: int) -> bool:
        gathering.answered(8, 0.0)
        waits = gathering.patience(0.0, 1.0) > 0
        gathering.began()
        for _ in range(comes):
            gathering.arrived(0.5)
        gathering.ended()
        return waits

    assert all(wait(3) for _ in range(3))
    rested = [wait(8) for _ in range(40)]
    assert rested[:31] == [False] * 31
    assert rested[32:] == [True] * 8
    assert all(wait(4) for _ in range(40))  # half of them is enough


async def _sizes(gather: float) -> list[int]:
    """Batches of two trainers, and of two more that begin while the first two are computed."""
    clock = Clock()
    host = SteppingHost({"toy.train": 4.0}, clock, gated=True)
    batcher = Batcher(host.run_step, Limits(gather=gather), clock=clock)

    async def train(value: int) -> None:
        for _ in range(30):
            await batcher.answer_all([call(value, "toy.train")])

    trainers = [asyncio.create_task(train(value)) for value in range(2)]
    await host.started()
    trainers += [asyncio.create_task(train(value)) for value in range(2, 4)]
    await asyncio.sleep(0)
    host.let_go()
    async with asyncio.timeout(60):
        await asyncio.gather(*trainers)
    await batcher.close()
    return [len(values) for _, values in host.batches]
