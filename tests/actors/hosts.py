"""Hosts without networks, for batchers without Ray: their time is a clock that they turn on."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.batcher import Batcher, Outcome
from actors.sender import ANYBODY, Sender
from farm.calls import Answer, Call, Paused


def call(value: float, op: str = "toy.echo", *, steps: int = 0, **static: Any) -> Call:
    """A call that echoes its value; of so many steps."""
    if steps:
        static["steps"] = steps
    return Call(op, {"value": np.asarray(value)}, static)


def value_of(outcome: Outcome) -> float:
    assert isinstance(outcome, Answer), outcome
    return float(outcome.arrays["value"])


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class SteppingHost:
    """Echoes, after as many steps as static `steps` says; batches are recorded as (op, values).

    Args:
        costs: seconds of an item by operation; 0 for others.
        clock: turned on by what a batch costs.
        gated: each batch waits until it is let go.
    """

    def __init__(
        self, costs: Mapping[str, float] = {}, clock: Clock | None = None, *, gated: bool = False
    ) -> None:
        self.batches: list[tuple[str, list[float]]] = []
        self.costs, self.clock = costs, clock or Clock()
        self._go = threading.Semaphore(0 if gated else 1 << 30)
        self._started = threading.Semaphore(0)

    def run_step(self, items: Sequence[Call | Paused]) -> list[Outcome | Paused]:
        calls = [item.call if isinstance(item, Paused) else item for item in items]
        self.batches.append((calls[0].op, [float(c.arrays["value"]) for c in calls]))
        self._started.release()
        self._go.acquire()
        self.clock.now += self.costs.get(calls[0].op, 0.0) * len(items)
        return [self._stepped(item) for item in items]

    def let_go(self, batches: int = 1000) -> None:
        self._go.release(batches)

    async def started(self) -> None:
        await asyncio.to_thread(self._started.acquire)

    def _stepped(self, item: Call | Paused) -> Outcome | Paused:
        call = item.call if isinstance(item, Paused) else item
        done, before = (item.held, item.seconds) if isinstance(item, Paused) else (0, 0.0)
        seconds = before + 1.0  # of each step, whoever shares it
        if done == call.static.get("steps", 0):
            return Answer(call.arrays, {"steps": done}, seconds)
        return Paused(call, "step", done + 1, {}, seconds)


async def queued(
    batcher: Batcher, *calls: Call, sender: Sender = ANYBODY
) -> "asyncio.Task[list[Outcome]]":
    """Ask; returns once the calls are in the queue."""
    task = asyncio.create_task(batcher.answer_all(calls, sender))
    await asyncio.sleep(0)  # one turn of the event loop: the task runs up to its wait
    return task
