"""Batching without Ray. The host waits to be let go, so what gathers meanwhile is certain."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.batcher import Batcher, Outcome
from actors.limits import Limits
from farm.calls import Answer, Call
from farm.errors import (
    EditDivergedError,
    EditFailedError,
    InvalidPromptError,
    QueueFullError,
    UnavailableError,
)


def call(value: float, op: str = "toy.echo", **static: bool) -> Call:
    return Call(op, {"value": np.asarray(value)}, static)


def value_of(outcome: Outcome) -> float:
    assert isinstance(outcome, Answer), outcome
    return float(outcome.arrays["value"])


def echo(calls: Sequence[Call]) -> list[Outcome]:
    return [Answer(c.arrays, {}, 0.0) for c in calls]


def echo_without(*poison: float, error: Exception) -> Callable[[Sequence[Call]], list[Outcome]]:
    """Echoes batches that hold none of these values, and fails on the others as a whole."""

    def run_batch(calls: Sequence[Call]) -> list[Outcome]:
        if any(float(c.arrays["value"]) in poison for c in calls):
            raise error
        return echo(calls)

    return run_batch


class GatedHost:
    """Echoes; each batch waits until it is let go. Batches are recorded as (op, values)."""

    def __init__(self, run_batch: Callable[[Sequence[Call]], list[Outcome]] = echo) -> None:
        self.batches: list[tuple[str, list[float]]] = []
        self._run_batch = run_batch
        self._go = threading.Semaphore(0)
        self._started = threading.Semaphore(0)

    def run_batch(self, calls: Sequence[Call]) -> list[Outcome]:
        self.batches.append((calls[0].op, [float(c.arrays["value"]) for c in calls]))
        self._started.release()
        self._go.acquire()
        return self._run_batch(calls)

    def let_go(self, batches: int = 1000) -> None:
        self._go.release(batches)

    async def started(self) -> None:
        await asyncio.to_thread(self._started.acquire)


class Crowd:
    """Callers of a batcher; `ask` returns once the calls are in the queue."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.tasks: list[asyncio.Task[list[Outcome]]] = []

    async def ask(self, *calls: Call) -> asyncio.Task[list[Outcome]]:
        task = asyncio.create_task(self.batcher.answer_all(calls))
        self.tasks.append(task)
        await asyncio.sleep(0)  # one turn of the event loop: the task runs up to its wait
        return task

    async def outcomes(self) -> list[Outcome]:
        return [outcome for outcomes in await asyncio.gather(*self.tasks) for outcome in outcomes]


@asynccontextmanager
async def busy(host: GatedHost, **limits: Any) -> AsyncIterator[Crowd]:
    """A batcher whose thread is busy with a first call of its own, until the host lets go."""
    batcher = Batcher(host.run_batch, Limits(**limits))
    first = asyncio.create_task(batcher.answer_all([call(-1, "toy.first")]))
    await host.started()
    try:
        yield Crowd(batcher)
    finally:
        host.let_go()
        await first
        await batcher.close()


async def test_what_waits_becomes_one_batch_and_each_gets_its_own_answer() -> None:
    host = GatedHost()
    async with busy(host) as crowd:
        for value in range(5):
            await crowd.ask(call(value))
        host.let_go()
        assert [value_of(o) for o in await crowd.outcomes()] == [0, 1, 2, 3, 4]
    assert host.batches == [("toy.first", [-1]), ("toy.echo", [0, 1, 2, 3, 4])]


async def test_an_idle_batcher_waits_for_nobody() -> None:
    host = GatedHost()
    async with busy(host):
        assert host.batches == [("toy.first", [-1])]  # it runs, and no second call was needed


async def test_calls_of_one_caller_are_batched_and_answered_in_order() -> None:
    host = GatedHost()
    async with busy(host) as crowd:
        await crowd.ask(call(0), call(1, "toy.other"), call(2))
        host.let_go()
        assert [value_of(o) for o in await crowd.outcomes()] == [0, 1, 2]
    assert host.batches[1:] == [("toy.echo", [0, 2]), ("toy.other", [1])]


async def test_no_batch_is_larger_than_the_largest() -> None:
    host = GatedHost()
    async with busy(host, max_batch=2) as crowd:
        await crowd.ask(*[call(value) for value in range(5)])
        host.let_go()
        await crowd.outcomes()
    assert [values for _, values in host.batches[1:]] == [[0, 1], [2, 3], [4]]


async def test_only_calls_of_one_key_share_a_batch() -> None:
    host = GatedHost()
    wide = Call("toy.echo", {"value": np.asarray(4.0), "more": np.zeros(3)})
    narrow = Call("toy.echo", {"value": np.asarray(5.0), "more": np.zeros(2)})
    single = Call("toy.echo", {"value": np.asarray(6.0, dtype=np.float32)})
    async with busy(host) as crowd:
        await crowd.ask(
            call(0), call(1, "toy.other"), call(2, guided=True), call(3), wide, narrow, single
        )
        host.let_go()
        await crowd.outcomes()
    assert [values for _, values in host.batches[1:]] == [[0, 3], [1], [2], [4], [5], [6]]


async def test_calls_that_ask_to_be_alone_are() -> None:
    host = GatedHost()
    async with busy(host) as crowd:
        await crowd.ask(call(0, alone=True), call(1, alone=True), call(2), call(3))
        host.let_go()
        await crowd.outcomes()
    assert [values for _, values in host.batches[1:]] == [[0], [2, 3], [1]]


async def test_keys_take_turns_and_the_oldest_comes_first() -> None:
    host = GatedHost()
    async with busy(host, max_batch=2) as crowd:
        await crowd.ask(*[call(value, "toy.many") for value in range(6)])
        await crowd.ask(call(10, "toy.few"))
        await crowd.ask(call(20, "toy.last"))
        host.let_go()
        await crowd.outcomes()
    assert host.batches[1:] == [
        ("toy.many", [0, 1]),
        ("toy.few", [10]),
        ("toy.last", [20]),
        ("toy.many", [2, 3]),
        ("toy.many", [4, 5]),
    ]


async def test_a_key_that_never_dries_up_starves_nobody() -> None:
    """A flood keeps arriving while it is served; the single call has its turn after one batch."""
    host = GatedHost()
    async with busy(host, max_batch=2) as crowd:
        await crowd.ask(*[call(value, "toy.flood") for value in range(4)])
        lonely = await crowd.ask(call(99))
        for value in range(4, 10):
            host.let_go(1)
            await host.started()
            await crowd.ask(call(value, "toy.flood"))
            if lonely.done():
                break
        assert lonely.done()
        host.let_go()
        await crowd.outcomes()
    assert [op for op, _ in host.batches[1:3]] == ["toy.flood", "toy.echo"]


@pytest.mark.parametrize("poison", [0, 3, 7])
async def test_a_poisonous_item_fails_alone(poison: int) -> None:
    host = GatedHost(echo_without(poison, error=ZeroDivisionError("poison")))
    async with busy(host) as crowd:
        await crowd.ask(*[call(value) for value in range(8)])
        host.let_go()
        outcomes = await crowd.outcomes()
        failed = outcomes.pop(poison)
        assert type(failed) is EditFailedError
        assert "toy.echo" in failed.message
        assert "ZeroDivisionError: poison" in failed.message
        assert [value_of(o) for o in outcomes] == [v for v in range(8) if v != poison]
        # 8, then at each of three levels both halves
        assert len(host.batches[1:]) == 1 + 2 * 3
        stats = crowd.batcher.stats()
        assert (stats.items, stats.failed) == (1 + 8, 1)


async def test_two_poisonous_items_fail_and_the_rest_do_not() -> None:
    error = InvalidPromptError("an operation may refuse with an error of the farm")
    host = GatedHost(echo_without(1, 2, error=error))
    async with busy(host) as crowd:
        await crowd.ask(*[call(value) for value in range(5)])
        host.let_go()
        outcomes = await crowd.outcomes()
    assert [type(o) for o in outcomes] == [
        Answer,
        InvalidPromptError,
        InvalidPromptError,
        Answer,
        Answer,
    ]


async def test_an_item_that_the_host_fails_does_not_touch_its_batch() -> None:
    def run_batch(calls: Sequence[Call]) -> list[Outcome]:
        outcomes = echo(calls)
        outcomes[1] = EditDivergedError("not finite")
        return outcomes

    host = GatedHost(run_batch)
    batcher = Batcher(host.run_batch)
    host.let_go()
    outcomes = await batcher.answer_all([call(0), call(1), call(2)])
    await batcher.close()
    assert [type(o) for o in outcomes] == [Answer, EditDivergedError, Answer]
    assert [values for _, values in host.batches] == [[0, 1, 2]]


async def test_memory_that_ran_out_is_remembered() -> None:
    def run_batch(calls: Sequence[Call]) -> list[Outcome]:
        if len(calls) > 2 and calls[0].op == "toy.echo":
            raise MemoryError
        return echo(calls)

    host = GatedHost(run_batch)
    batcher = Batcher(host.run_batch)
    host.let_go()
    await batcher.answer_all([call(value) for value in range(8)])
    del host.batches[:]
    outcomes = await batcher.answer_all([call(value) for value in range(6)])
    assert [value_of(o) for o in outcomes] == list(range(6))
    assert [len(values) for _, values in host.batches] == [2, 2, 2]
    await batcher.answer_all([call(value, "toy.other") for value in range(5)])
    assert len(host.batches[-1][1]) == 5  # another operation has its own limit
    await batcher.close()


async def test_a_host_that_loses_an_item_hangs_nobody() -> None:
    batcher = Batcher(lambda calls: echo(calls)[1:])
    outcomes = await batcher.answer_all([call(0), call(1)])
    await batcher.close()
    assert [type(o) for o in outcomes] == [EditFailedError, EditFailedError]


async def test_whoever_went_away_is_not_computed() -> None:
    host = GatedHost()
    async with busy(host) as crowd:
        await crowd.ask(call(0))
        gone = await crowd.ask(call(1), call(2))
        await crowd.ask(call(3))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        crowd.tasks.remove(gone)
        host.let_go()
        assert [value_of(o) for o in await crowd.outcomes()] == [0, 3]
        stats = crowd.batcher.stats()
        assert (stats.dropped, stats.waiting) == (2, 0)
    assert host.batches[1:] == [("toy.echo", [0, 3])]


async def test_whoever_goes_away_in_mid_batch_leaves_the_others_theirs() -> None:
    host = GatedHost()
    batcher = Batcher(host.run_batch)
    crowd = Crowd(batcher)
    gone = await crowd.ask(call(0))
    await crowd.ask(call(1))
    await host.started()
    gone.cancel()
    host.let_go()
    crowd.tasks.remove(gone)
    assert [value_of(o) for o in await crowd.outcomes()] == [1]
    await batcher.close()


async def test_a_full_queue_refuses_and_opens_again() -> None:
    host = GatedHost()
    async with busy(host, max_queue=2) as crowd:
        await crowd.ask(call(0), call(1), call(2))
        assert crowd.batcher.stats().waiting == 2
        host.let_go()
        outcomes = await crowd.outcomes()
        assert [value_of(o) for o in outcomes[:2]] == [0, 1]
        assert isinstance(outcomes[2], QueueFullError)
        assert crowd.batcher.stats().refused == 1
        assert [value_of(o) for o in await crowd.batcher.answer_all([call(2)])] == [2]


async def test_closing_lets_nobody_wait_for_ever() -> None:
    host = GatedHost()
    async with busy(host) as crowd:
        await crowd.ask(call(0))
        closing = asyncio.create_task(crowd.batcher.close())
        (outcome,) = await crowd.outcomes()
        assert isinstance(outcome, UnavailableError)
        host.let_go()
        await closing
        (late,) = await crowd.batcher.answer_all([call(1)])
        assert isinstance(late, UnavailableError)


async def test_the_figures_add_up() -> None:
    host = GatedHost()
    async with busy(host, max_batch=3) as crowd:
        await crowd.ask(*[call(value) for value in range(4)], call(9, "toy.other"))
        assert crowd.batcher.stats().waiting == 5
        host.let_go()
        await crowd.outcomes()
        stats = crowd.batcher.stats()
    assert (stats.batches, stats.items, stats.waiting) == (4, 6, 0)
    assert stats.mean_batch == 6 / 4
    assert stats.items_by_op == {"toy.first": 1, "toy.echo": 4, "toy.other": 1}
    assert stats.busy_seconds > 0


def test_the_event_loop_stays_free_while_a_batch_is_computed() -> None:
    """The computation ends only when the event loop runs on meanwhile."""

    async def scenario() -> None:
        free = threading.Event()

        def run_batch(calls: Sequence[Call]) -> list[Outcome]:
            assert free.wait(60)
            return echo(calls)

        batcher = Batcher(run_batch)
        waiting: Awaitable[list[Outcome]] = asyncio.ensure_future(batcher.answer_all([call(0)]))
        await asyncio.sleep(0)
        free.set()
        await waiting
        await batcher.close()

    asyncio.run(scenario())


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.booleans()), min_size=1, max_size=30
    ),
    max_batch=st.integers(1, 5),
)
def test_any_crowd_is_answered_in_lawful_batches(
    kinds: list[tuple[str, bool]], max_batch: int
) -> None:
    batches: list[list[Call]] = []

    def run_batch(calls: Sequence[Call]) -> list[Outcome]:
        batches.append(list(calls))
        return echo(calls)

    async def scenario() -> list[list[Outcome]]:
        batcher = Batcher(run_batch, Limits(max_batch=max_batch))
        crowd = [
            batcher.answer_all([call(index, f"toy.{op}", alone=alone)])
            for index, (op, alone) in enumerate(kinds)
        ]
        outcomes = await asyncio.gather(*crowd)
        await batcher.close()
        return outcomes

    answered = asyncio.run(scenario())
    assert [value_of(outcome) for (outcome,) in answered] == list(range(len(kinds)))
    assert sum(len(batch) for batch in batches) == len(kinds)
    for batch in batches:
        assert len({c.key for c in batch}) == 1
        assert len(batch) <= (1 if batch[0].static["alone"] else max_batch)
