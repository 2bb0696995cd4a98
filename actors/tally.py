"""Counts of a batcher, kept as it works."""

from collections import Counter
from collections.abc import Callable, Sequence

from actors.lanes import Item, Outcome
from actors.stats import BatcherStats
from actors.waiting_room import WaitingRoom
from farm.calls import Paused
from farm.errors import FarmError


class Tally:
    """Written by the event loop alone; `stats` may be asked from any thread.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._made = clock()
        self._since: float | None = None
        self._batches = self._items = self._answered = self._failed = 0
        self._busy = 0.0
        self._by_op: Counter[str] = Counter()
        self.refused = self.dropped = self.cancelled = self.hung = 0

    def started(self) -> None:
        """The compute thread is busy from now."""
        self._since = self._clock()

    def stopped(self) -> float:
        """The compute thread is free; for how long it was busy."""
        assert self._since is not None, "stopped only after it was started"
        seconds, self._since = self._clock() - self._since, None
        self._busy += seconds
        return seconds

    def computed(self, items: Sequence[Item], results: Sequence[Outcome | Paused]) -> None:
        """A batch was computed."""
        self._batches += 1
        self._items += len(items)
        self._by_op[items[0].call.op] += len(items)
        self._answered += sum(not isinstance(result, Paused) for result in results)
        self._failed += sum(isinstance(result, FarmError) for result in results)

    def stats(self, room: WaitingRoom, running: int) -> BatcherStats:
        """A snapshot."""
        now, since = self._clock(), self._since
        running_seconds = 0.0 if since is None else now - since
        keys = room.records.key_stats(room.by_key())
        return BatcherStats(
            batches=self._batches,
            items=self._items,
            answered=self._answered,
            failed=self._failed,
            refused=self.refused,
            dropped=self.dropped,
            cancelled=self.cancelled,
            hung=self.hung,
            waiting=len(room),
            running=running,
            running_seconds=running_seconds,
            busy_seconds=self._busy + running_seconds,
            wait_seconds=sum(key.wait_seconds for key in keys.values()),
            uptime_seconds=now - self._made,
            items_by_op=dict(self._by_op),
            waiting_by_priority=room.by_priority(),
            by_key=keys,
            by_tenant=room.records.tenant_stats(room.by_tenant()),
        )
