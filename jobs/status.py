"""What the cluster has, what waits for machines, and why.

    editfarm status
    editfarm status --address 10.0.0.5:6379 --json

Reads Ray's tables and starts nothing. Ends with exit code 1 where something waits that no machine
will come for: it asks for more than the table of nodes allows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from actors.cluster_state import ClusterState, NodeState, by_kind, find_address, read_cluster
from cluster.nodes import NODES, NodeTable
from jobs.cluster import read_nodes
from jobs.console import FarmCommand, JsonOption, command_app, print_json, print_table

app = command_app()

AddressOption = Annotated[str | None, typer.Option(help="Of the cluster. [RAY_ADDRESS]")]


@app.command(cls=FarmCommand)
def status(
    address: AddressOption = None,
    nodes: Annotated[
        Path | None, typer.Option(help="The cluster's table of nodes, if not the package's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show machines, what waits for them, and why."""
    table = NODES if nodes is None else read_nodes(nodes)
    state = read_cluster(find_address(address), table)
    if as_json:
        print_json(asdict(state))
    else:
        print_table(nodes_table(state, table))
        for line in wait_lines(state):
            typer.echo(line)
    raise typer.Exit(1 if any(wait.hopeless for wait in state.waits) else 0)


def nodes_table(state: ClusterState, nodes: NodeTable) -> Table:
    """Machines by kind, with their limits where the table knows them."""
    table = Table("kind", "nodes", "starting", "CPUs used", "GPUs used", "state", box=None)
    found = by_kind(state.nodes)
    for name in [*found, *(name for name in state.starting if name not in found)]:
        kind = nodes.kind(name)
        there = found.get(name, [])
        limits = f" of {kind.min_nodes} to {kind.max_nodes}" if kind else ""
        table.add_row(
            escape(name),
            f"{len(there)}{limits}",
            str(state.starting.get(name, "")),
            _used(there, "CPU"),
            _used(there, "GPU"),
            ", ".join(sorted({node.state for node in there})),
        )
    return table


def wait_lines(state: ClusterState) -> Iterator[str]:
    """What waits, and why; one line each."""
    for wait in state.waits:
        yield f"{wait.count} waiting for {_words(wait.resources, wait.selector)}:"
        for reason in wait.reasons:
            yield f"  {reason}"
    for kind, why in state.failures:
        yield f"{kind} could not be started: {why}"
    if not state.waits:
        yield "nothing waits for a machine"


def _used(nodes: list[NodeState], name: str) -> str:
    total = sum(node.total[name] for node in nodes)
    return f"{sum(node.used[name] for node in nodes):g} of {total:g}" if total else ""


def _words(resources: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    amounts = ", ".join(f"{amount:g} {name}" for name, amount in resources.items())
    chosen = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f"{amounts} ({chosen})" if chosen else amounts


if __name__ == "__main__":
    app()
