"""Continuous batching: whenever the compute thread is free, it takes all that waits of one key.

No Ray in it: asyncio for those who wait, one thread for the computation. There is no window and no
timer; while a batch is computed the next one gathers by itself.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TypeAlias

import torch

from farm.calls import Answer, Call
from farm.errors import EditFailedError, FarmError, QueueFullError, UnavailableError

logger = logging.getLogger(__name__)

Outcome: TypeAlias = Answer | FarmError
"""What became of a call. An error is a value here, since a list of calls may fail in part."""

RunBatch: TypeAlias = Callable[[Sequence[Call]], list[Outcome]]
"""Computes calls of one key in one batch; outcomes in their order."""

Key: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class BatcherStats:
    """Counts since the batcher was made.

    Attributes:
        batches: batches that were computed; one that failed counts as the parts it was split into.
        items: calls that were computed.
        failed: of these, calls whose outcome is an error.
        refused: calls that found the queue full.
        dropped: calls whose caller went away before they were computed.
        waiting: calls in the queue now.
        busy_seconds: time for which the compute thread was busy.
        items_by_op: computed calls by operation.
    """

    batches: int = 0
    items: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    waiting: int = 0
    busy_seconds: float = 0.0
    items_by_op: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def mean_batch(self) -> float:
        """Calls computed per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


@dataclass(eq=False)
class _Item:
    call: Call
    outcome: "asyncio.Future[Outcome]"


class Batcher:
    """Answers calls in batches, from one event loop with one compute thread.

    Keys take turns, the one that has waited longest first, so none starves; inside a key the
    oldest calls go first. A batch that fails is halved until the calls that cannot be computed
    stand alone: only these fail.

    Args:
        run_batch: computes calls of one key; runs in the compute thread.
        max_batch: largest number of calls in a batch.
        max_queue: waiting calls beyond which further ones are refused.
    """

    def __init__(self, run_batch: RunBatch, *, max_batch: int = 16, max_queue: int = 1024) -> None:
        self._run_batch = run_batch
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queues: OrderedDict[Key, deque[_Item]] = OrderedDict()
        self._caps: dict[Key, int] = {}  # largest batch that fits the memory, where known
        self._stats = BatcherStats()  # replaced as a whole, so that any thread may read it
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._dispatcher: asyncio.Task[None] | None = None
        self._closed = False

    async def answer_all(self, calls: Sequence[Call]) -> list[Outcome]:
        """Outcomes in the order of the calls; the calls may be computed in different batches.

        A call that cannot be queued has a QueueFullError as its outcome, the others go on. When
        the caller is cancelled, its calls that are not being computed yet are dropped.
        """
        if self._closed:
            return [UnavailableError("this backbone is shutting down: ask again") for _ in calls]
        if self._dispatcher is None:
            self._dispatcher = asyncio.create_task(self._dispatch())
        return list(await asyncio.gather(*[self._enqueue(call) for call in calls]))

    def stats(self) -> BatcherStats:
        """The figures so far; may be asked from any thread."""
        return self._stats

    async def close(self) -> None:
        """Stop after the batch that is being computed; whoever waits gets an UnavailableError."""
        self._closed = True
        for queue in self._queues.values():
            for item in queue:
                _deliver(item, UnavailableError("this backbone is shutting down: ask again"))
        self._queues.clear()
        self._wake.set()
        if self._dispatcher is not None:
            await self._dispatcher
        self._thread.shutdown()

    def _enqueue(self, call: Call) -> "asyncio.Future[Outcome]":
        item = _Item(call, asyncio.get_running_loop().create_future())
        waiting = sum(len(queue) for queue in self._queues.values())
        if waiting >= self._max_queue:
            self._count(refused=1)
            _deliver(item, _queue_full(waiting))
            return item.outcome
        self._queues.setdefault(call.key, deque()).append(item)
        self._count(waiting=1)
        self._wake.set()
        return item.outcome

    async def _dispatch(self) -> None:
        while not self._closed:
            self._wake.clear()
            while self._queues:
                key, batch = self._next_batch()
                if batch:
                    await self._compute(key, batch)
            if not self._closed:
                await self._wake.wait()

    def _next_batch(self) -> tuple[Key, list[_Item]]:
        """Calls of the key whose turn it is, without those that nobody awaits any more."""
        key, queue = self._queues.popitem(last=False)
        size = (
            1 if queue[0].call.static.get("alone", False) else self._caps.get(key, self._max_batch)
        )
        batch: list[_Item] = []
        dropped = 0
        while queue and len(batch) < size:
            item = queue.popleft()
            if item.outcome.done():
                dropped += 1
            else:
                batch.append(item)
        if queue:
            self._queues[key] = queue  # at the end of the row: the other keys come first
        self._count(waiting=-len(batch) - dropped, dropped=dropped)
        return key, batch

    async def _compute(self, key: Key, batch: list[_Item]) -> None:
        """Compute a batch and deliver; halve it when it fails as a whole."""
        calls = [item.call for item in batch]
        start = perf_counter()
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._run, calls)
        await asyncio.wait({running})
        self._count(busy_seconds=perf_counter() - start)
        error = running.exception()
        if error is not None and len(batch) > 1:
            await self._halve(key, batch, error)
            return
        outcomes = running.result() if error is None else [_failure(calls[0], error)]
        self._count_batch(calls[0].op, outcomes)
        for item, outcome in zip(batch, outcomes, strict=True):
            _deliver(item, outcome)

    async def _halve(self, key: Key, batch: list[_Item], error: BaseException) -> None:
        half = len(batch) // 2
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            self._caps[key] = half
        logger.warning("a batch of %d %s failed and is halved: %r", len(batch), key[0], error)
        await self._compute(key, batch[:half])
        await self._compute(key, batch[half:])

    def _count(self, **amounts: float) -> None:
        grown = {name: getattr(self._stats, name) + amount for name, amount in amounts.items()}
        self._stats = replace(self._stats, **grown)

    def _count_batch(self, op: str, outcomes: Sequence[Outcome]) -> None:
        failed = sum(isinstance(outcome, FarmError) for outcome in outcomes)
        self._count(batches=1, items=len(outcomes), failed=failed)
        by_op = self._stats.items_by_op
        total = by_op.get(op, 0) + len(outcomes)
        self._stats = replace(self._stats, items_by_op={**by_op, op: total})

    def _run(self, calls: Sequence[Call]) -> list[Outcome]:
        outcomes = self._run_batch(calls)
        if len(outcomes) != len(calls):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(calls)} {calls[0].op} calls")
        return outcomes


def _deliver(item: _Item, outcome: Outcome) -> None:
    if not item.outcome.done():  # a caller may have gone away meanwhile
        item.outcome.set_result(outcome)


def _failure(call: Call, error: BaseException) -> FarmError:
    if isinstance(error, FarmError):
        return error
    logger.error("%s failed on a single item", call.op, exc_info=error)
    failure = EditFailedError(
        f"{call.op} failed on this edit's item alone: {type(error).__name__}: {error}; the "
        "backbone's log holds the traceback"
    )
    failure.__cause__ = error
    return failure


def _queue_full(waiting: int) -> QueueFullError:
    return QueueFullError(
        f"{waiting} calls wait for this backbone, which is all it accepts: ask again later, run "
        "fewer edits at once, or add a replica"
    )
