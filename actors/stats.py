"""What a backbone tells of its work: plain figures, cheap to send. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class KeyStats:
    """Work of one kind: calls that could have shared batches.

    Attributes:
        op: name of the operation.
        batches: batches that were computed; each step of a stepped operation counts.
        items: items in them.
        seconds: for which the compute thread was busy with them.
        wait_seconds: summed over items: from when they could be computed until they were.
        waiting: items in the queue now.
        cap: largest batch that is tried now.
    """

    op: str
    batches: int = 0
    items: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    waiting: int = 0
    cap: int = 0

    @property
    def mean_batch(self) -> float:
        """Items per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0

    @property
    def step_seconds(self) -> float:
        """Mean time of a batch; 0 before the first."""
        return self.seconds / self.batches if self.batches else 0.0

    @property
    def mean_wait(self) -> float:
        """Mean time for which an item waited; 0 before the first."""
        return self.wait_seconds / self.items if self.items else 0.0


@dataclass(frozen=True)
class TenantStats:
    """Work for one tenant.

    Attributes:
        items: items that were computed.
        seconds: their shares of the time that the compute thread was busy.
        waiting: items in the queue now.
    """

    items: int = 0
    seconds: float = 0.0
    waiting: int = 0


@dataclass(frozen=True)
class BatcherStats:
    """Counts since the batcher was made.

    Attributes:
        batches: batches that were computed; one that failed counts as the parts it was split into,
            and each step of a stepped operation counts.
        items: items that were computed in them.
        answered: calls that have their outcome from the host.
        failed: of these, calls whose outcome is an error.
        refused: calls that found the queue full.
        dropped: calls whose caller went away before they were computed.
        cancelled: calls that were cancelled by their caller's name.
        hung: steps that were given up, see `Limits.step_seconds`.
        waiting: items in the queue now.
        running: items that are being computed now.
        running_seconds: for how long they have been.
        busy_seconds: time for which the compute thread was busy.
        wait_seconds: summed over items: from when they could be computed until they were.
        uptime_seconds: since the batcher was made.
        items_by_op: computed items by operation.
        waiting_by_priority: items in the queue now.
        by_key: by a name in words, operation first.
        by_tenant: by the tenant's name.
    """

    batches: int = 0
    items: int = 0
    answered: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    cancelled: int = 0
    hung: int = 0
    waiting: int = 0
    running: int = 0
    running_seconds: float = 0.0
    busy_seconds: float = 0.0
    wait_seconds: float = 0.0
    uptime_seconds: float = 0.0
    items_by_op: Mapping[str, int] = field(default_factory=dict[str, int])
    waiting_by_priority: Mapping[str, int] = field(default_factory=dict[str, int])
    by_key: Mapping[str, KeyStats] = field(default_factory=dict[str, KeyStats])
    by_tenant: Mapping[str, TenantStats] = field(default_factory=dict[str, TenantStats])

    @property
    def mean_batch(self) -> float:
        """Items computed per batch; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0

    @property
    def mean_wait(self) -> float:
        """Mean time for which an item waited; 0 before the first."""
        return self.wait_seconds / self.items if self.items else 0.0

    @property
    def busy_share(self) -> float:
        """Of the time since the start, for which the compute thread was busy."""
        return self.busy_seconds / self.uptime_seconds if self.uptime_seconds else 0.0

    @property
    def depth(self) -> int:
        """Items that wait or are being computed: what a caller looks at to choose a replica."""
        return self.waiting + self.running
