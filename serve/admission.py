"""Whether one more edit is taken: rates as token buckets, bounded queues, bytes kept.

One process decides for all replicas of the HTTP side, so that limits hold however many there are.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from serve.limits import TenantLimits

_RESERVED_SECONDS = 30.0
"""How long a place is held for an edit whose record is being written."""
_BUSY_SECONDS = 5.0


@dataclass(frozen=True)
class Refusal:
    """Why not, and when to ask again; `retry_after` in seconds."""

    code: str
    detail: str
    retry_after: float


@dataclass
class Bucket:
    """Tokens that flow in steadily up to a minute's worth."""

    per_minute: float
    level: float
    updated: float

    def wait_for(self, amount: float, now: float, spare: float = 0.0) -> float:
        """Seconds until that many tokens are there; 0 if they are.

        Args:
            amount: of tokens.
            now: in seconds.
            spare: share of a minute's tokens that must be left after.
        """
        rate = self.per_minute / 60
        self.level = min(self.per_minute, self.level + (now - self.updated) * rate)
        self.updated = now
        wanted = min(amount + spare * self.per_minute, self.per_minute)  # else it never would be
        return max(0.0, (wanted - self.level) / rate)

    def take(self, amount: float) -> None:
        self.level -= min(amount, self.per_minute)


@dataclass
class _Account:
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])
    reserved: dict[str, float] = field(default_factory=dict[str, float])
    """Deadline by id."""
    stored: int = 0


class Admission:
    """Decides, and remembers what it let in.

    Args:
        max_queue: edits that wait, of all tenants.
        clock: seconds, monotonic.
    """

    def __init__(self, max_queue: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_queue, self._clock = max_queue, clock
        self._accounts: dict[str, _Account] = {}

    def admit(
        self,
        tenant: str,
        limits: TenantLimits,
        name: str,
        *,
        pixels: int,
        waiting: int,
        waiting_of_tenant: int,
        spare: float = 0.0,
    ) -> Refusal | None:
        """Hold a place for an edit, or say why not.

        Args:
            tenant: whose.
            limits: the tenant's.
            name: the edit's id.
            pixels: of its image.
            waiting: edits of all tenants that are not finished.
            waiting_of_tenant: those of this one.
            spare: share of the tenant's limits that must be left for others of its edits.
        """
        now = self._clock()
        account = self._account(tenant)
        self._expire(now)
        held = sum(len(other.reserved) for other in self._accounts.values())
        if waiting + held >= self._max_queue:
            return Refusal("queue_full", "the farm's queue is full", _BUSY_SECONDS)
        own = waiting_of_tenant + len(account.reserved)
        if limits.max_queued is not None and own >= ceil(limits.max_queued * (1 - spare)):
            detail = f"{own} of your edits are not finished, and {limits.max_queued} is the most"
            return Refusal("too_many_edits", detail, _BUSY_SECONDS)
        refusal = _no_storage(account, limits) or _charge(account, limits, pixels, now, spare)
        if refusal is None:
            account.reserved[name] = now + _RESERVED_SECONDS
        return refusal

    def charge(self, tenant: str, limits: TenantLimits) -> Refusal | None:
        """Count what needs no place as one edit of the tenant's rate, or say why not."""
        account = self._account(tenant)
        return _no_storage(account, limits) or _charge(account, limits, 0, self._clock(), 0.0)

    def release(self, tenant: str, name: str) -> None:
        """The place is no longer held: its edit is in the queue, or will never come."""
        self._account(tenant).reserved.pop(name, None)

    def count_stored(self, tenant: str, total: int) -> None:
        """A tenant's edits take so many bytes."""
        self._account(tenant).stored = total

    def stored(self, tenant: str, change: int) -> None:
        """A tenant's edits take so many bytes more."""
        account = self._account(tenant)
        account.stored = max(0, account.stored + change)

    def _account(self, tenant: str) -> _Account:
        return self._accounts.setdefault(tenant, _Account())

    def _expire(self, now: float) -> None:
        for account in self._accounts.values():
            for name in [n for n, deadline in account.reserved.items() if deadline < now]:
                del account.reserved[name]


def _no_storage(account: _Account, limits: TenantLimits) -> Refusal | None:
    if limits.max_stored_bytes is None or account.stored < limits.max_stored_bytes:
        return None
    detail = (
        f"your edits take {account.stored:,} bytes of storage, and "
        f"{limits.max_stored_bytes:,} is the most: delete some"
    )
    return Refusal("storage_full", detail, 60.0)


def _charge(
    account: _Account, limits: TenantLimits, pixels: int, now: float, spare: float
) -> Refusal | None:
    costs = {
        "edits_per_minute": (limits.edits_per_minute, 1.0),
        "pixels_per_minute": (limits.pixels_per_minute, float(pixels)),
    }
    charged: list[tuple[Bucket, float]] = []
    for kind, (limit, cost) in costs.items():
        if limit is None:
            continue
        bucket = account.buckets.setdefault(kind, Bucket(limit, limit, now))
        bucket.per_minute = limit  # the operator may have changed it
        wait = bucket.wait_for(cost, now, spare)
        if wait > 0:
            detail = f"more than {limit:,} {kind.replace('_', ' ')}"
            return Refusal("rate_limited", detail, wait)
        charged.append((bucket, cost))
    for bucket, cost in charged:
        bucket.take(cost)
    return None
