"""Continuous batching: whenever the compute thread is free, it takes all that waits of one key.

No Ray in it: asyncio for those who wait, one thread for the computation. While a batch is computed
the next one gathers by itself. An operation of several steps comes back after each of them, so its
items meet others at every step, and a newcomer waits for one step.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter
from typing import TypeAlias

import torch

from actors.anticipation import Anticipation
from actors.caps import Cap, MemoryGauge, padded_size
from actors.lanes import Item, Outcome
from actors.limits import Limits
from actors.sender import ANYBODY, Sender
from actors.stats import BatcherStats
from actors.tally import Tally
from actors.waiting_room import Chosen, WaitingRoom
from farm.backbones.shortage import is_short_of_memory
from farm.calls import Call, Paused
from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    EditFailedError,
    FarmError,
    OutOfMemoryError,
    QueueFullError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

_DEVICE_PATIENCE = 10.0
"""Seconds for a device to compute a little, after an error of its."""

Work: TypeAlias = Call | Paused
RunStep: TypeAlias = Callable[[Sequence[Work]], Sequence[Outcome | Paused]]
"""Computes work of one key in one batch: outcomes in its order, or where it is paused."""


def try_device() -> None:
    """Compute a little; raises where the device is lost to this process.

    Some errors of CUDA's are of one step alone, as a grid that is too large.
    """
    torch.cuda.synchronize()
    torch.zeros(1, device="cuda").add_(1).item()


class Batcher:
    """Answers calls in batches, from one event loop with one compute thread.

    Whose batch is next is the `WaitingRoom`'s business. A batch that runs out of memory is tried
    once more if room can be made; else it goes back and comes again in halves. One that fails
    otherwise is halved until the items that cannot be computed stand alone: only these fail. A
    step that hangs, or that breaks the device for its process, is the end of the batcher.

    Args:
        run_step: computes items of one key; runs in the compute thread.
        limits: of queue, batches and shares.
        gauge: of the device's memory, where batches are to be probed.
        make_room: drops what is kept for later, when memory ran out; False if there was nothing.
            Runs in the compute thread.
        on_hang: called when a step was given up, or broke the device; the process is lost then, and
            nothing more is computed: whoever owns it should end it.
        try_device: raises where the device is lost; asked in the compute thread, after an error of
            the device.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        run_step: RunStep,
        limits: Limits | None = None,
        *,
        gauge: MemoryGauge | None = None,
        make_room: Callable[[], bool] = lambda: False,
        on_hang: Callable[[], None] = lambda: None,
        try_device: Callable[[], None] = try_device,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._run_step = run_step
        self._limits = limits or Limits()
        self._make_room, self._on_hang, self._clock = make_room, on_hang, clock
        self._try_device = try_device
        self._room = WaitingRoom(self._limits, gauge)
        self._tally = Tally(clock)
        self._anticipation = Anticipation(self._limits.linger)
        self._running: list[Item] = []
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._dispatcher: asyncio.Task[None] | None = None
        self._closed = self._lost = False

    async def answer_all(self, calls: Sequence[Call], sender: Sender = ANYBODY) -> list[Outcome]:
        """Outcomes in the order of the calls; the calls may be computed in different batches.

        A call that cannot be queued has a QueueFullError as its outcome, the others go on. When
        the caller is cancelled, its calls that are not being computed yet are dropped.
        """
        if self._closed:
            return [_closing() for _ in calls]
        if self._dispatcher is None:
            self._dispatcher = asyncio.create_task(self._dispatch())
        return list(await asyncio.gather(*[self._enqueue(call, sender) for call in calls]))

    def cancel(self, caller: str) -> int:
        """Drop all calls of a caller, which get an EditCancelledError at once; how many they were.

        What is being computed runs to the end of its step, for nobody. Call it in the event loop.
        """
        waiting = self._room.remove(lambda item: item.sender.caller == caller)
        running = [item for item in self._running if item.sender.caller == caller]
        found = [item for item in (*waiting, *running) if not item.outcome.done()]
        for item in found:
            _deliver(item, EditCancelledError(f"{item.call.op} of {caller} was cancelled"))
        self._tally.cancelled += len(found)
        return len(found)

    def stats(self) -> BatcherStats:
        """The figures so far; may be asked from any thread."""
        return self._tally.stats(self._room, len(self._running))

    async def close(self) -> None:
        """Stop after the batch that is being computed; whoever waits gets an UnavailableError."""
        self._closed = True
        for item in self._room.remove(lambda _: True):
            _deliver(item, _closing())
        self._wake.set()
        if self._dispatcher is not None:
            await self._dispatcher
        self._thread.shutdown(wait=not self._lost)

    def _enqueue(self, call: Call, sender: Sender) -> "asyncio.Future[Outcome]":
        now = self._clock()
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        item = Item(call, sender, call.key, outcome, now)
        if sender.attempt:
            item.key = (*item.key, "again", id(item))
        refusal = _replaced() if self._lost else self._room.refusal(item)
        if refusal is not None:
            self._tally.refused += 1
            _deliver(item, refusal)
            return outcome
        if sender.priority == "interactive":
            self._anticipation.arrived(now)
        self._room.arrived(item, now)
        self._wake.set()
        return outcome

    async def _dispatch(self) -> None:
        while not (self._closed or self._lost):
            self._wake.clear()
            while not self._lost and (chosen := await self._next_batch()) is not None:
                self._tally.dropped += chosen.dropped
                start = self._clock()
                await self._compute(chosen.items, chosen)
                self._room.served(chosen, self._clock() - start)
                await self._keep_free()
            if not (self._closed or self._lost):
                await self._wake.wait()

    async def _next_batch(self) -> Chosen | None:
        """What is computed next; a moment later, where more of its callers are about to come."""
        gathering = None
        while not self._closed and (wait := self._room.to_gather(self._clock())) is not None:
            found, patience = wait
            if gathering is None:
                gathering = found
                gathering.began()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), patience)
            except TimeoutError:
                break
        if gathering is not None and not self._room.by_priority()["interactive"]:
            gathering.ended()  # cut short by others it says nothing of those awaited
        return self._room.next_batch()

    async def _compute(self, items: list[Item], chosen: Chosen) -> None:
        """Compute items of one batch and deliver; part them when they fail as a whole."""
        start = self._clock()
        waited = sum(start - item.since for item in items)
        self._running = items
        self._tally.started()
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._run, items, chosen)
        done, _ = await asyncio.wait({running}, timeout=self._limits.step_seconds)
        if not done:
            self._give_up(items)
            return
        self._running = []
        seconds = self._tally.stopped()
        error = running.exception()
        if error is not None and _may_break_device(error) and not await self._device_answers():
            self._give_up_broken(items, error)
            return
        if error is not None and len(items) > 1:
            await self._part(items, chosen, error)
            return
        results = running.result() if error is None else [_failure(items[0].call, error)]
        self._tally.computed(items, results)
        self._room.records.computed(items, seconds, waited)
        answered = sum(not isinstance(result, Paused) for result in results)
        chosen.record.gathering.answered(answered, self._clock())
        for item, result in zip(items, results, strict=True):
            self._next(item, result)

    async def _device_answers(self) -> bool:
        trying = asyncio.get_running_loop().run_in_executor(self._thread, self._try_device)
        done, _ = await asyncio.wait({trying}, timeout=_DEVICE_PATIENCE)
        return bool(done) and trying.exception() is None

    async def _part(self, items: list[Item], chosen: Chosen, error: BaseException) -> None:
        if is_short_of_memory(error):
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            chosen.record.cap.ran_out(len(items))
            logger.warning("%d %s need too much memory: halved", len(items), chosen.record.op)
            self._room.put_back([item for item in items if not item.outcome.done()])
            return
        half = len(items) // 2
        logger.warning("a batch of %d %s failed: halved: %r", len(items), chosen.record.op, error)
        await self._compute(items[:half], chosen)
        if not self._lost:
            await self._compute(items[half:], chosen)
            return
        for item in items[half:]:  # in no queue: nobody else tells their callers
            _deliver(item, _replaced())

    def _next(self, item: Item, result: Outcome | Paused) -> None:
        """Hand out an outcome, or let a paused item in again."""
        if not isinstance(result, Paused):
            if item.sender.priority == "interactive":
                self._anticipation.answered(self._clock())
            _deliver(item, result)
        elif self._closed:
            _deliver(item, _closing())
        elif not item.outcome.done():
            item.work, item.since = result, self._clock()
            item.key = (*result.key, "again", id(item)) if item.sender.attempt else result.key
            self._room.add(item)

    async def _keep_free(self) -> None:
        """Wait a moment for the next step of an interactive caller, if it is likely to come."""
        patience = self._anticipation.patience(self._clock())
        if patience <= 0 or self._closed or not self._room.may_keep_free():
            return
        start = self._clock()
        while self._room.may_keep_free() and (left := start + patience - self._clock()) > 0:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), left)
            except TimeoutError:
                self._anticipation.missed()
                break
        self._room.kept_free(self._clock() - start)

    def _give_up(self, items: list[Item]) -> None:
        """A step hangs, and nothing can end its thread."""
        self._tally.hung += 1
        limit = self._limits.step_seconds or 0.0
        op = items[0].call.op
        logger.error("%d %s hang for %.0f s: this backbone gives up", len(items), op, limit)
        self._lose(
            items,
            f"{op} was not computed within {limit:.0f} s, in a batch of {len(items)}: the "
            "backbone hangs and is replaced",
        )

    def _give_up_broken(self, items: list[Item], error: BaseException) -> None:
        """A step broke the device: each later one would fail in this process, whatever it holds."""
        op = items[0].call.op
        logger.error(
            "%d %s broke the device: this backbone gives up", len(items), op, exc_info=error
        )
        self._lose(
            items,
            f"{op} broke the device, in a batch of {len(items)}: the backbone is replaced; "
            f"{_first_line(error)}",
        )

    def _lose(self, items: list[Item], message: str) -> None:
        """Tell the callers of a step, and all others to ask again: nobody is forgotten.

        Else a message of several calls, one of which hangs, would come again whole, without end.
        """
        self._lost = True
        for item in items:
            _deliver(item, BackboneLostError(message))
        for item in self._room.remove(lambda _: True):
            _deliver(item, _replaced())
        self._on_hang()

    def _run(self, items: list[Item], chosen: Chosen) -> list[Outcome | Paused]:
        """In the compute thread: a batch, padded if so wished."""
        works = [item.work for item in items]
        cap = chosen.record.cap
        size = len(works)
        if self._limits.pad and chosen.record.size > 1:
            size = padded_size(len(works), cap.size)
        cap.start()
        results = self._run_twice([*works, *works[-1:] * (size - len(works))], cap)
        if len(results) != size:
            raise RuntimeError(f"{len(results)} outcomes for {size} {chosen.record.op} calls")
        cap.fitted(size)
        scale = size / len(works)
        return [
            result if scale == 1 else _scaled(result, work, scale)
            for work, result in zip(works, results, strict=False)
        ]

    def _run_twice(self, works: Sequence[Work], cap: Cap) -> Sequence[Outcome | Paused]:
        """In the compute thread: a step, and once more if memory ran out and room can be made.

        What is kept for later grows until memory is full, and no batch is too small for that.
        """
        try:
            return self._run_step(works)
        except Exception as error:
            if not is_short_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
            if not self._make_room():
                raise
        logger.warning("memory ran out over %d items: caches dropped, tried again", len(works))
        cap.made_room()  # out of the handler: the error is gone, and what it held with it
        return self._run_step(works)


def _scaled(result: Outcome | Paused, work: Work, scale: float) -> Outcome | Paused:
    """With the time of the copies that filled the batch shared among the real items."""
    if isinstance(result, FarmError):
        return result
    before = work.seconds if isinstance(work, Paused) else 0.0
    return replace(result, seconds=before + scale * (result.seconds - before))


def _deliver(item: Item, outcome: Outcome) -> None:
    if not item.outcome.done():  # a caller may have gone away meanwhile
        item.outcome.set_result(outcome)


def _replaced() -> QueueFullError:
    return QueueFullError("this backbone is lost and being replaced: ask again in a moment")


def _closing() -> UnavailableError:
    return UnavailableError("this backbone is shutting down: ask again")


def _may_break_device(error: BaseException) -> bool:
    """Whether this process may be unable to use its device any more (illegal access, ECC, XID)."""
    return isinstance(error, torch.AcceleratorError) and not is_short_of_memory(error)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _failure(call: Call, error: BaseException) -> FarmError:
    if isinstance(error, FarmError):
        return error
    logger.error("%s failed on a single item", call.op, exc_info=error)
    kind = OutOfMemoryError if is_short_of_memory(error) else EditFailedError
    failure = kind(
        f"{call.op} failed on this edit's item alone: {type(error).__name__}: {error}; the "
        "backbone's log holds the traceback"
    )
    failure.__cause__ = error
    return failure
