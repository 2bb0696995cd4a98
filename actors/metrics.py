"""The farm's figures as Prometheus metrics, through Ray's exporter on every node.

Which there are is said in `cluster/metrics.py`. Without Ray nothing is counted and nothing fails:
the same code runs inline.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import ray
from ray.util import metrics as ray_metrics

from actors.stats import BatcherStats
from cluster import metrics as table
from cluster.metrics import Metric
from farm.errors import EditCancelledError, FarmError
from farm.results import EditResult
from farm.storage.store import Entry, MissingKeyError, Store, Version

_PERIOD = 5.0  # seconds; Ray's agents collect about every ten
_T = TypeVar("_T")


_BY_NAME = {metric.name: metric for metric in table.METRICS}


@cache
def _exported(name: str) -> Any:
    """Ray's object for a row of the table, once in a process."""
    metric = _BY_NAME[name]
    if metric.type == "counter":
        return ray_metrics.Counter(metric.name, metric.help, metric.labels)
    if metric.type == "gauge":
        return ray_metrics.Gauge(metric.name, metric.help, metric.labels)
    return ray_metrics.Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)


def count(metric: Metric, amount: float = 1.0, **labels: str) -> None:
    """Add to a counter; nothing is no event, and without Ray there is nobody to tell."""
    if amount > 0 and ray.is_initialized():
        _exported(metric.name).inc(amount, labels)


def set_gauge(metric: Metric, value: float, **labels: str) -> None:
    """Say what a gauge shows now."""
    if ray.is_initialized():
        _exported(metric.name).set(value, labels)


def observe(metric: Metric, value: float, **labels: str) -> None:
    """Put a value into a histogram."""
    if ray.is_initialized():
        _exported(metric.name).observe(value, labels)


@dataclass
class BackboneMeter:
    """Turns a batcher's snapshots into metrics: what is new since the last one is added."""

    pid: str = field(default_factory=lambda: str(os.getpid()))
    _last: BatcherStats = field(default_factory=BatcherStats)

    def publish(self, stats: BatcherStats) -> None:
        """Tell of a snapshot; snapshots of one batcher, in their order."""
        last, self._last = self._last, stats
        count(table.BUSY, stats.busy_seconds - last.busy_seconds)
        count(table.UPTIME, stats.uptime_seconds - last.uptime_seconds)
        answered = stats.answered - stats.failed
        for outcome, now, then in (
            ("answered", answered, last.answered - last.failed),
            ("failed", stats.failed, last.failed),
            ("refused", stats.refused, last.refused),
            ("dropped", stats.dropped, last.dropped),
            ("cancelled", stats.cancelled, last.cancelled),
            ("hung", stats.hung, last.hung),
        ):
            count(table.CALLS, now - then, outcome=outcome)
        for metric, name in (
            (table.BATCHES, "batches"),
            (table.ITEMS, "items"),
            (table.STEP_SECONDS, "seconds"),
            (table.WAIT_SECONDS, "wait_seconds"),
        ):
            before = _by_op(last, name)
            for op, total in _by_op(stats, name).items():
                count(metric, total - before.get(op, 0), op=op)
        for priority in stats.waiting_by_priority.keys() | last.waiting_by_priority.keys():
            waiting = stats.waiting_by_priority.get(priority, 0)
            set_gauge(table.WAITING, waiting, priority=priority, pid=self.pid)
        set_gauge(table.RUNNING, stats.running, pid=self.pid)


def _by_op(stats: BatcherStats, name: str) -> dict[str, float]:
    """A figure of all keys of an operation together: keys are many, operations few."""
    sums: dict[str, float] = {}
    for key in stats.by_key.values():
        sums[key.op] = sums.get(key.op, 0) + getattr(key, name)
    return sums


def watch_backbone(stats: Callable[[], BatcherStats], period: float = _PERIOD) -> threading.Event:
    """Publish a batcher's figures now and then, until the event that is returned is set.

    Args:
        stats: gives a snapshot; asked from a thread of its own.
        period: seconds between two snapshots.
    """
    stopped = threading.Event()
    meter = BackboneMeter()

    def publish() -> None:
        while not stopped.wait(period):
            meter.publish(stats())

    threading.Thread(target=publish, name="metrics", daemon=True).start()
    return stopped


def count_edit(method: str, outcome: EditResult | FarmError) -> None:
    """Tell of an edit that ended in this process."""
    if isinstance(outcome, FarmError):
        state = "cancelled" if isinstance(outcome, EditCancelledError) else "failed"
        count(table.EDITS, method=method, state=state, reason=type(outcome).__name__)
        return
    if outcome.reused:
        count(table.EDITS, method=method, state="reused", reason="")
        return
    made = outcome.provenance
    count(table.EDITS, method=method, state="done", reason="")
    count(table.ACCELERATOR_SECONDS, made.accelerator_seconds, method=method)
    observe(table.EDIT_SECONDS, made.seconds, method=method)
    for stage, seconds in made.stage_seconds.items():
        observe(table.STAGE_SECONDS, seconds, stage=stage)
    for stage in made.stages:
        found = "made" if stage in made.stages_made else "found"
        count(table.STAGES, stage=stage, found=found)


@dataclass(frozen=True)
class MeasuredStore:
    """A store whose requests are timed and counted. It pickles, and is what it wraps otherwise."""

    inner: Store

    @property
    def uri(self) -> str:
        return self.inner.uri

    def get(self, key: str) -> bytes:
        return _timed("get", lambda: self.inner.get(key))

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        return _timed("get", lambda: self.inner.get_with_version(key))

    def put(self, key: str, data: bytes) -> Version:
        return _timed("put", lambda: self.inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        return _conditional("put_if_absent", lambda: self.inner.put_if_absent(key, data))

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        return _conditional("put_if_match", lambda: self.inner.put_if_match(key, data, version))

    def delete(self, key: str) -> None:
        _timed("delete", lambda: self.inner.delete(key))

    def exists(self, key: str) -> bool:
        return _timed("exists", lambda: self.inner.exists(key))

    def size(self, key: str) -> int:
        return _timed("size", lambda: self.inner.size(key))

    def list(self, prefix: str) -> Iterator[str]:
        """One request of the store is a page of keys; the whole listing is counted as one."""
        keys = _timed("list", lambda: [*self.inner.list(prefix)])
        return iter(keys)

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        """Counted as `list` is."""
        found = _timed("list", lambda: [*self.inner.entries(prefix, deep=deep)])
        return iter(found)

    def names(self, prefix: str) -> Iterator[str]:
        """Counted as `list` is."""
        found = _timed("list", lambda: [*self.inner.names(prefix)])
        return iter(found)

    def put_file(self, key: str, path: Path) -> None:
        _timed("put", lambda: self.inner.put_file(key, path))

    def get_file(self, key: str, path: Path) -> None:
        _timed("get", lambda: self.inner.get_file(key, path))


def measured(store: Store) -> Store:
    """The store, with its requests measured."""
    return store if isinstance(store, MeasuredStore) else MeasuredStore(store)


def _timed(operation: str, act: Callable[[], _T]) -> _T:
    start = perf_counter()
    try:
        answer = act()
    except MissingKeyError:  # an answer, not a failure
        observe(table.STORE_SECONDS, perf_counter() - start, operation=operation)
        raise
    except FarmError as error:
        count(table.STORE_ERRORS, operation=operation, error=type(error).__name__)
        raise
    observe(table.STORE_SECONDS, perf_counter() - start, operation=operation)
    return answer


def _conditional(operation: str, act: Callable[[], Version | None]) -> Version | None:
    version = _timed(operation, act)
    if version is None:
        count(table.COMMIT_CONFLICTS, operation=operation)
    return version
