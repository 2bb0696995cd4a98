"""Watch the live farm: edits, queues, batches, accelerators and the store.

    editfarm top
    editfarm top --once --json

Rates are of the time between two looks. The figures are those of Prometheus (docs/operations.md),
read from every node's exporter; nothing is installed or changed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from actors.cluster_state import find_address, read_cluster
from actors.local import local_ray
from actors.scraping import Sample, exporters, scrape
from cluster import metrics as m
from cluster.nodes import NODES
from jobs.console import FarmCommand, JsonOption, command_app, print_json, print_table
from jobs.status import AddressOption, nodes_table, wait_lines

_LABELS = frozenset(
    {"op", "state", "reason", "priority", "outcome", "operation", "method", "stage"}
)

app = command_app()


@app.command(cls=FarmCommand)
def top(
    address: AddressOption = None,
    every: Annotated[float, typer.Option(min=1, help="Seconds between two looks.")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, show the result, end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch what backbones, edits and the store do."""
    found = find_address(address)
    with local_ray(address=found):
        last = _look()
        if once or as_json:
            time.sleep(every)
            figures = compare(last, _look())
            if as_json:
                print_json(figures)
            else:
                for part in _view(found, figures):
                    if isinstance(part, Table):
                        print_table(part)
                    else:
                        typer.echo(part)
            return
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                now = _look()
                live.update(Group(*_view(found, compare(last, now))), refresh=True)
                last = now


@dataclass(frozen=True)
class Look:
    """The farm's figures at one time."""

    seconds: float
    sample: Sample


def _look() -> Look:
    return Look(time.monotonic(), scrape(exporters(), _LABELS))


def compare(then: Look, now: Look) -> dict[str, Any]:
    """What happened between two looks, per second where that has a sense."""
    passed = max(now.seconds - then.seconds, 1e-9)

    def grown(metric: m.Metric, label: str, suffix: str = "") -> dict[str, float]:
        before = then.sample.by(metric, label, suffix)
        after = now.sample.by(metric, label, suffix)
        # a process that is gone takes its counts along: nothing is no event
        return {key: max(0.0, value - before.get(key, 0.0)) for key, value in after.items()}

    up = sum(grown(m.UPTIME, "").values())
    batches, items = grown(m.BATCHES, "op"), grown(m.ITEMS, "op")
    seconds, waited = grown(m.STEP_SECONDS, "op"), grown(m.WAIT_SECONDS, "op")
    requests = grown(m.STORE_SECONDS, "operation", "_count")
    spent = grown(m.STORE_SECONDS, "operation", "_sum")
    return {
        "seconds": passed,
        "silent_nodes": now.sample.silent,
        "edits": {
            "by_state": now.sample.by(m.EDITS, "state"),
            "per_second": _rates(grown(m.EDITS, "state"), passed),
            "failed_by_reason": {
                reason: value
                for reason, value in now.sample.by(m.EDITS, "reason").items()
                if reason
            },
        },
        "waiting": now.sample.by(m.WAITING, "priority"),
        "running": now.sample.total(m.RUNNING),
        "busy_share": sum(grown(m.BUSY, "").values()) / up if up else 0.0,
        "calls": now.sample.by(m.CALLS, "outcome"),
        "operations": {
            op: {
                "items_per_second": items.get(op, 0.0) / passed,
                "mean_batch": items.get(op, 0.0) / count,
                "batch_seconds": seconds.get(op, 0.0) / count,
                "wait_seconds": waited.get(op, 0.0) / max(items.get(op, 0.0), 1.0),
            }
            for op, count in sorted(batches.items())
            if count
        },
        "store": {
            operation: {"per_second": count / passed, "seconds": spent.get(operation, 0.0) / count}
            for operation, count in sorted(requests.items())
            if count
        },
        "store_errors": now.sample.total(m.STORE_ERRORS),
        "lost_races": now.sample.total(m.COMMIT_CONFLICTS),
    }


def _rates(grown: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {name: value / seconds for name, value in grown.items()}


def _view(address: str, figures: Mapping[str, Any]) -> list[Table | str]:
    state = read_cluster(address)
    edits = figures["edits"]
    done = ", ".join(f"{int(value)} {name}" for name, value in edits["by_state"].items())
    failed = ", ".join(f"{int(n)} {reason}" for reason, n in edits["failed_by_reason"].items())
    waiting = ", ".join(f"{int(n)} {name}" for name, n in sorted(figures["waiting"].items())) or "0"
    busy, running = figures["busy_share"], int(figures["running"])
    errors, lost = int(figures["store_errors"]), int(figures["lost_races"])
    lines = [
        f"edits: {done or 'none yet'}" + (f" ({failed})" if failed else ""),
        f"backbones: {busy:.0%} busy, {running} calls running, waiting: {waiting}",
        f"store: {errors} errors, {lost} lost races",
    ]
    if figures["silent_nodes"]:
        lines.append(f"{figures['silent_nodes']} nodes do not tell their figures")
    return [
        nodes_table(state, NODES),
        *wait_lines(state),
        "",
        *lines,
        _operations(figures["operations"]),
        _store(figures["store"]),
    ]


def _operations(rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("operation", "items/s", "mean batch", "ms a batch", "ms waited", box=None)
    for op, row in rows.items():
        table.add_row(
            op,
            f"{row['items_per_second']:.1f}",
            f"{row['mean_batch']:.2f}",
            f"{row['batch_seconds'] * 1000:.1f}",
            f"{row['wait_seconds'] * 1000:.1f}",
        )
    return table


def _store(rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("store", "requests/s", "ms", box=None)
    for operation, row in rows.items():
        table.add_row(operation, f"{row['per_second']:.1f}", f"{row['seconds'] * 1000:.1f}")
    return table


if __name__ == "__main__":
    app()
