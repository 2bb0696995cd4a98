"""Who is computed when: priorities, tenants, steps, cancellation, memory, hanging, padding."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import torch

from actors.batcher import Batcher, Outcome
from actors.limits import Limits
from actors.sender import Sender
from farm.calls import Answer, Call, Paused
from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    EditFailedError,
    OutOfMemoryError,
    QueueFullError,
)
from tests.actors.hosts import Clock, SteppingHost, call, queued, value_of
from tests.actors.test_caps import Memory

USER = Sender("user", "interactive")


@asynccontextmanager
async def held(host: SteppingHost, **limits: object) -> AsyncIterator[Batcher]:
    """A batcher whose thread is busy with a first call, until the gated host lets go."""
    batcher = Batcher(host.run_step, Limits(**limits), clock=host.clock)  # type: ignore[arg-type]
    first = await queued(batcher, call(-1, "toy.first"))
    await host.started()
    try:
        yield batcher
    finally:
        host.let_go()
        await first
        await batcher.close()


Items = Sequence[Call | Paused]


def failing(
    host: SteppingHost, fails: Callable[[Items], bool], error: Exception
) -> Callable[[Items], list[Outcome | Paused]]:
    """The host's step, but for some batches."""

    def run_step(items: Items) -> list[Outcome | Paused]:
        if fails(items):
            raise error
        return host.run_step(items)

    return run_step


def holds_three(items: Items) -> bool:
    return any(float(item.arrays["value"]) == 3 for item in items if isinstance(item, Call))


async def test_a_long_sampling_and_single_steps_share_the_thread() -> None:
    """A newcomer waits for one step of the sampling, not for all of them."""
    host = SteppingHost(gated=True)
    async with held(host) as batcher:
        sampling = await queued(batcher, call(1, "toy.sample", steps=5))
        single = await queued(batcher, call(2))
        host.let_go()
        await asyncio.gather(sampling, single)
        stats = batcher.stats()
    assert host.batches[1:3] == [("toy.sample", [1]), ("toy.echo", [2])]
    assert [op for op, _ in host.batches[3:]] == ["toy.sample"] * 5
    assert (stats.answered, stats.items) == (3, 1 + 1 + 6)


async def test_samplings_that_began_apart_share_batches_from_where_they_meet() -> None:
    host = SteppingHost(gated=True)
    async with held(host) as batcher:
        first = await queued(batcher, call(1, "toy.sample", steps=6))
        host.let_go(3)  # the first call, the beginning and a step
        for _ in range(3):
            await host.started()
        second = await queued(batcher, call(2, "toy.sample", steps=6))
        host.let_go()
        ((one,), (two,)) = await asyncio.gather(first, second)
    assert (value_of(one), value_of(two)) == (1, 2)
    shared = [values for op, values in host.batches if op == "toy.sample" and len(values) == 2]
    assert shared == [[1, 2]] * len(shared)
    assert shared


async def test_a_cancelled_sampling_takes_no_further_step() -> None:
    host = SteppingHost(gated=True)
    async with held(host) as batcher:
        mine = await queued(batcher, call(1, "toy.sample", steps=6), sender=Sender(caller="me"))
        other = await queued(batcher, call(2, "toy.sample", steps=6), sender=Sender(caller="you"))
        waiting = await queued(batcher, call(3), sender=Sender(caller="me"))
        host.let_go(1)
        await host.started()  # the beginning of both samplings is being computed
        assert batcher.cancel("me") == 2
        assert batcher.cancel("me") == 0
        ((cancelled,), (dropped,)) = await asyncio.gather(mine, waiting)  # at once, not in the end
        assert isinstance(cancelled, EditCancelledError)
        assert isinstance(dropped, EditCancelledError)
        host.let_go()
        (answer,) = await other
        assert value_of(answer) == 2
        stats = batcher.stats()
    assert host.batches[1] == ("toy.sample", [1, 2])
    assert all(values == [2] for _, values in host.batches[2:])
    assert (stats.cancelled, stats.waiting) == (2, 0)


async def test_interactive_calls_go_first() -> None:
    host = SteppingHost(gated=True)
    async with held(host, max_batch=2) as batcher:
        batch = await queued(batcher, *[call(value, "toy.train") for value in range(4)])
        user = await queued(batcher, call(9, "toy.look"), sender=USER)
        assert batcher.stats().waiting_by_priority == {"interactive": 1, "batch": 4}
        host.let_go()
        await asyncio.gather(batch, user)
    assert [op for op, _ in host.batches[1:]] == ["toy.look", "toy.train", "toy.train"]


async def test_batch_work_keeps_its_share_beside_a_caller_that_never_pauses() -> None:
    clock = Clock()
    host = SteppingHost({"toy.look": 1.0, "toy.train": 4.0}, clock)
    batcher = Batcher(host.run_step, Limits(max_batch=1, batch_share=0.25, linger=2.0), clock=clock)
    training = await queued(batcher, *[call(value, "toy.train") for value in range(12)])
    while not training.done():
        await batcher.answer_all([call(0, "toy.look")], USER)
    await batcher.close()
    ops = [op for op, _ in host.batches]
    looked = ops[: len(ops) - ops[::-1].index("toy.train")].count("toy.look")
    # 12 batches of 4 s are a quarter of all: 144 s of looking, but for the last batch's share
    assert 12 * 11 <= looked <= 12 * 12 + 12
    gaps = [len(run) for run in " ".join(ops).replace("toy.look", "l").split("toy.train")]
    assert max(gaps) <= 2 * (12 + 2)  # it never waits for longer than its share's worth


async def test_work_of_an_interactive_batch_s_key_comes_along_if_it_costs_little() -> None:
    clock = Clock()
    cheap = SteppingHost({"toy.train": 1.0}, clock, gated=True)
    cheap_step = cheap.run_step

    def run_step(items: Items) -> list[Outcome | Paused]:
        results = cheap_step(items)
        clock.now += 20.0  # a batch costs 20 and an item 1: company is nearly free
        return results

    cheap.run_step = run_step  # type: ignore[method-assign]
    async with held(cheap, fill=0.25) as batcher:
        for number in (1, 8):  # what batches of two sizes cost is learned
            learn = await queued(batcher, *[call(value, "toy.train") for value in range(number)])
            cheap.let_go(2 if number == 1 else 1)
            await learn
        tasks = [
            await queued(batcher, call(100, "toy.first")),
            await queued(batcher, *[call(value, "toy.train") for value in range(20, 30)]),
            await queued(batcher, call(9, "toy.train"), sender=USER),
        ]
        cheap.let_go()
        await asyncio.gather(*tasks)
    led = next(values for _, values in cheap.batches if 9 in values)
    assert led[0] == 9
    assert len(led) == 6  # 20 + 6 is within a quarter of 20 + 1, and 20 + 7 is not


async def test_tenants_get_equal_time_however_many_keys_and_calls_they_have() -> None:
    clock = Clock()
    host = SteppingHost({"toy.dear": 5.0, "toy.cheap": 1.0, "toy.other": 2.0}, clock, gated=True)
    async with held(host, max_batch=1) as batcher:
        many = [call(1, "toy.dear")] * 30 + [call(1, "toy.other")] * 30
        tasks = [
            await queued(batcher, *many, sender=Sender("many")),
            await queued(batcher, *[call(2, "toy.cheap")] * 60, sender=Sender("few")),
        ]
        host.let_go()
        await asyncio.gather(*tasks)
        stats = batcher.stats()
    spent = {1.0: 0.0, 2.0: 0.0}
    for op, (value,) in host.batches[1:]:
        spent[value] += host.costs[op]
        if spent[2.0] >= 59:
            break
        assert abs(spent[1.0] - spent[2.0]) <= 5.0 + 1e-9
    assert stats.by_tenant["few"].seconds == pytest.approx(60)
    assert stats.by_tenant["many"].items == 60


async def test_a_batch_takes_of_every_tenant_in_turn() -> None:
    host = SteppingHost(gated=True)
    async with held(host, max_batch=4) as batcher:
        tasks = [
            await queued(batcher, *[call(v) for v in range(6)], sender=Sender("a")),
            await queued(batcher, *[call(v) for v in range(10, 12)], sender=Sender("b")),
            await queued(batcher, call(20), sender=Sender("c")),
        ]
        host.let_go()
        await asyncio.gather(*tasks)
    assert sorted(host.batches[1][1]) == [0, 1, 10, 20]


async def test_a_tenant_fills_its_own_part_of_the_queue_alone() -> None:
    host = SteppingHost(gated=True)
    async with held(host, max_queue=5, max_tenant_queue=2) as batcher:
        a = await queued(batcher, *[call(v) for v in range(4)], sender=Sender("a"))
        b = await queued(batcher, *[call(v) for v in range(2)], sender=Sender("b"))
        assert batcher.stats().by_tenant["a"].waiting == 2
        host.let_go()
        first, second = await asyncio.gather(a, b)
    assert [type(o) for o in first] == [Answer, Answer, QueueFullError, QueueFullError]
    assert isinstance(first[2], QueueFullError)
    assert "tenant 'a'" in first[2].message
    assert [value_of(o) for o in second] == [0, 1]


async def test_the_thread_stays_free_for_a_caller_that_asks_again_at_once() -> None:
    """Between its steps no training step is begun, until its share is due."""
    host = SteppingHost()
    limits = Limits(max_batch=1, linger=0.5, batch_share=0.0)
    batcher = Batcher(host.run_step, limits)
    await batcher.answer_all([call(0, "toy.look")], USER)
    training = await queued(batcher, *[call(value, "toy.train") for value in range(3)])
    for step in range(20):
        await batcher.answer_all([call(step, "toy.look")], USER)
        await asyncio.sleep(0)  # as long as an answer is under way
    await training
    await batcher.close()
    ops = [op for op, _ in host.batches]
    last = len(ops) - ops[::-1].index("toy.look")
    assert ops[:last].count("toy.train") <= 1  # the one that was begun before


async def test_memory_is_probed_and_what_did_not_fit_comes_again_in_halves() -> None:
    memory = Memory(room=1000, item=100)
    host = SteppingHost()

    def run_step(items: Items) -> list[Outcome | Paused]:
        memory.compute(len(items))
        return host.run_step(items)

    batcher = Batcher(run_step, Limits(max_batch=64), gauge=memory)
    outcomes = await batcher.answer_all([call(value) for value in range(60)])
    assert [value_of(o) for o in outcomes] == list(range(60))
    sizes = [len(values) for _, values in host.batches]
    assert sizes[:5] == [1, 2, 4, 8, 8]
    assert memory.given_back == 0
    memory.item = 300  # another process takes its part
    outcomes = await batcher.answer_all([call(value) for value in range(8)])
    assert [value_of(o) for o in outcomes] == list(range(8))
    assert memory.given_back == 2  # of 8 and of 4
    (key,) = batcher.stats().by_key.values()
    assert key.cap == 2
    await batcher.close()


async def test_a_single_item_that_does_not_fit_fails_alone() -> None:
    host = SteppingHost()
    batcher = Batcher(failing(host, holds_three, MemoryError()), Limits(max_batch=8))
    outcomes = await batcher.answer_all([call(value) for value in range(8)])
    await batcher.close()
    failed = outcomes.pop(3)
    assert isinstance(failed, EditFailedError)
    assert "MemoryError" in failed.message
    assert [value_of(o) for o in outcomes] == [0, 1, 2, 4, 5, 6, 7]


_TORCH_IS_FULL = torch.OutOfMemoryError("CUDA out of memory")
_DRIVER_IS_FULL = torch.AcceleratorError("CUDA error: out of memory")


class Hoard:
    """A step that runs out of memory while more than so many caches are kept."""

    def __init__(self, kept: int, needs: int = 0, error: RuntimeError = _TORCH_IS_FULL) -> None:
        self.kept, self._needs, self._error = kept, needs, error
        self.host = SteppingHost()
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    def run_step(self, items: Items) -> list[Outcome | Paused]:
        self.sizes.append(len(items))
        self.threads.add(threading.get_ident())
        if self.kept or self._needs:
            raise self._error
        return self.host.run_step(items)

    def make_room(self) -> bool:
        self.threads.add(threading.get_ident())
        held, self.kept = self.kept, 0
        return held > 0


@pytest.mark.parametrize("items", [1, 4])
async def test_caches_that_filled_the_memory_are_dropped_and_no_item_fails(items: int) -> None:
    hoard, memory = Hoard(kept=8), Memory(room=1000, item=1)
    limits = Limits(max_batch=items)
    batcher = Batcher(hoard.run_step, limits, gauge=memory, make_room=hoard.make_room)
    outcomes = await batcher.answer_all([call(value, steps=1) for value in range(items)])
    assert [value_of(o) for o in outcomes] == list(range(items))
    assert hoard.sizes[:2] == [1, 1]  # the same once more
    assert memory.given_back == 1
    assert len(hoard.threads) == 1, "caches are the compute thread's"
    await batcher.close()


@pytest.mark.parametrize("error", [_TORCH_IS_FULL, _DRIVER_IS_FULL])
async def test_a_batch_is_not_halved_where_dropping_caches_was_enough(error: RuntimeError) -> None:
    hoard = Hoard(kept=8, error=error)
    batcher = Batcher(hoard.run_step, Limits(max_batch=4), make_room=hoard.make_room)
    await batcher.answer_all([call(value) for value in range(4)])
    assert hoard.sizes == [4, 4]
    (key,) = batcher.stats().by_key.values()
    assert key.cap == 4
    await batcher.close()


async def test_what_does_not_fit_without_caches_either_fails_after_one_more_try() -> None:
    hoard = Hoard(kept=8, needs=1)
    batcher = Batcher(hoard.run_step, Limits(max_batch=4), make_room=hoard.make_room)
    (failed,) = await batcher.answer_all([call(0)])
    assert isinstance(failed, OutOfMemoryError)
    assert hoard.sizes == [1, 1]
    (again,) = await batcher.answer_all([call(1)])  # with nothing to drop
    assert isinstance(again, OutOfMemoryError)
    assert hoard.sizes == [1, 1, 1]
    await batcher.close()


async def test_a_step_that_hangs_is_given_up_and_said_so() -> None:
    host = SteppingHost(gated=True)
    hung = threading.Event()
    batcher = Batcher(host.run_step, Limits(step_seconds=0.05), on_hang=hung.set)
    stuck = await queued(batcher, call(1), call(2))
    await host.started()
    other = await queued(batcher, call(3, "toy.other"))
    outcomes = await stuck
    assert [type(o) for o in outcomes] == [BackboneLostError] * 2
    assert "batch of 2" in str(outcomes[0])
    assert hung.is_set()
    assert batcher.stats().hung == 1
    (asked_again,) = await other
    assert isinstance(asked_again, QueueFullError)  # its caller asks whoever takes the place
    (late,) = await batcher.answer_all([call(4)])
    assert isinstance(late, QueueFullError)
    host.let_go()
    await batcher.close()


def dead() -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


async def test_an_error_of_one_step_alone_fails_its_item_and_nothing_else() -> None:
    """CUDA calls many things an error that leave the device as it was."""
    host, lost, tried = SteppingHost(), threading.Event(), 0

    def alive() -> None:
        nonlocal tried
        tried += 1

    error = torch.AcceleratorError("CUDA error: invalid configuration argument")
    run_step = failing(host, holds_three, error)
    batcher = Batcher(run_step, Limits(max_batch=8), on_hang=lost.set, try_device=alive)
    outcomes = await batcher.answer_all([call(value) for value in range(8)])
    await batcher.close()
    failed = outcomes.pop(3)
    assert isinstance(failed, EditFailedError)
    assert "invalid configuration" in failed.message
    assert [value_of(o) for o in outcomes] == [0, 1, 2, 4, 5, 6, 7]
    assert tried > 0
    assert not lost.is_set()


async def test_a_step_that_breaks_the_device_ends_the_backbone() -> None:
    """Each later step would fail too: else all that waits would be burnt, one item at a time."""
    host = SteppingHost(gated=True)
    lost = threading.Event()

    def run_step(items: Items) -> list[Outcome | Paused]:
        host.run_step(items)
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    batcher = Batcher(run_step, on_hang=lost.set, try_device=dead)
    broken = await queued(batcher, call(1), call(2))
    await host.started()
    other = await queued(batcher, call(3, "toy.other"))
    host.let_go()
    outcomes = await broken
    assert [type(o) for o in outcomes] == [BackboneLostError] * 2
    assert str(outcomes[0]).endswith("CUDA error: an illegal memory access was encountered")
    assert lost.is_set()
    (asked_again,) = await other
    assert isinstance(asked_again, QueueFullError)
    (late,) = await batcher.answer_all([call(4)])
    assert isinstance(late, QueueFullError)
    assert [op for op, _ in host.batches] == ["toy.echo"], "nothing is computed on it any more"
    await batcher.close()


async def test_the_other_half_of_a_batch_whose_half_is_lost_is_told_too() -> None:
    def run_step(items: Items) -> list[Outcome | Paused]:
        if len(items) == 4:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    batcher = Batcher(run_step, try_device=dead)
    answers = batcher.answer_all([call(value) for value in range(4)])
    outcomes = await asyncio.wait_for(answers, 10)
    assert [type(o) for o in outcomes] == [BackboneLostError] * 2 + [QueueFullError] * 2
    await batcher.close()


@pytest.mark.parametrize("error", [_TORCH_IS_FULL, _DRIVER_IS_FULL])
async def test_short_memory_of_the_device_breaks_nothing(error: RuntimeError) -> None:
    host, lost = SteppingHost(), threading.Event()
    batcher = Batcher(failing(host, lambda items: len(items) > 2, error), on_hang=lost.set)
    outcomes = await batcher.answer_all([call(value) for value in range(8)])
    await batcher.close()
    assert [value_of(o) for o in outcomes] == list(range(8))
    assert not lost.is_set()


async def test_a_call_that_hung_before_is_computed_alone() -> None:
    host = SteppingHost(gated=True)
    async with held(host) as batcher:
        tasks = [
            await queued(batcher, call(1), call(2)),
            await queued(batcher, call(3, steps=1), call(4, steps=1), sender=Sender(attempt=1)),
        ]
        host.let_go()
        outcomes = await asyncio.gather(*tasks)
    assert [value_of(o) for chunk in outcomes for o in chunk] == [1, 2, 3, 4]
    assert host.batches[1][1] == [1, 2]
    assert all(len(values) == 1 for _, values in host.batches[2:])


async def test_padded_batches_have_few_sizes_and_give_the_same_answers() -> None:
    host = SteppingHost(gated=True)
    async with held(host, max_batch=12, pad=True) as batcher:
        plain = await queued(batcher, *[call(value, steps=1) for value in range(5)])
        alone = await queued(batcher, call(7, alone=True))
        host.let_go()
        outcomes = await plain
        (one,) = await alone
        stats = batcher.stats()
    sizes = [len(values) for op, values in host.batches[1:]]
    assert sorted(sizes) == [1, 8, 8]
    assert [value_of(o) for o in outcomes] == [0, 1, 2, 3, 4]
    assert value_of(one) == 7
    assert stats.items == 1 + 2 * 5 + 1  # copies are no items
    for outcome in outcomes:
        assert isinstance(outcome, Answer)
        # two steps of a second each, and the copies' time shared among the real ones
        assert outcome.seconds == pytest.approx(2 * 8 / 5)


async def test_figures_by_key_tell_batches_waits_and_times() -> None:
    clock = Clock()
    host = SteppingHost({"toy.train": 2.0}, clock, gated=True)
    async with held(host) as batcher:
        training = await queued(batcher, *[call(value, "toy.train") for value in range(3)])
        clock.now += 7
        host.let_go()
        await training
        stats = batcher.stats()
    (key,) = [key for key in stats.by_key.values() if key.op == "toy.train"]
    assert (key.batches, key.items, key.cap) == (1, 3, 16)
    assert key.mean_batch == 3
    assert key.step_seconds == pytest.approx(6)
    assert key.mean_wait == pytest.approx(7)
    assert stats.busy_share == pytest.approx((6 + 7) / clock.now)  # 7 s in the first call
    assert stats.depth == 0
    assert any(label.startswith("toy.train value:1") for label in stats.by_key)
