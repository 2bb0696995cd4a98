"""Write the cluster's files anew from the tables of `cluster/`, or check that they are up to date.

editfarm cluster render                        # all files, into cluster/
editfarm cluster render --target aws --set image_cuda=… --set aws_region=eu-central-1 --to mine
editfarm cluster render --check                # exit code 1 where a file differs
editfarm cluster nodes                         # the kinds of nodes
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from cluster.nodes import NODES, NodeTable
from cluster.rendering.targets import TARGETS, render
from cluster.settings import SETTINGS, Settings
from farm.errors import InvalidRequestError
from farm.requests import describe
from jobs.console import (
    FarmCommand,
    JsonOption,
    command_app,
    print_json,
    print_table,
    say,
    write_file,
)

_HERE = Path(__file__).parent.parent
SERVE_CONFIG = _HERE / "serve" / "config.yaml"

app = command_app("Render and check the cluster's files.")


class Target(StrEnum):
    """What to render for."""

    aws = "aws"
    gcp = "gcp"
    onprem = "onprem"
    kuberay = "kuberay"
    compose = "compose"


@app.command("render", cls=FarmCommand)
def render_command(
    target: Annotated[Target | None, typer.Option(help="Which files. [all]")] = None,
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = _HERE / "cluster",
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of cluster/settings.py."),
    ] = None,
    nodes: Annotated[
        Path | None, typer.Option(help="Another table of nodes, as JSON (see `cluster nodes`).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; compare.")] = False,
) -> None:
    """Write launcher, KubeRay, image and monitoring files."""
    table = NODES if nodes is None else read_nodes(nodes)
    settings = with_values(SETTINGS, values or [])
    differing: list[str] = []
    for name in [target.value] if target else TARGETS:
        for path, text in render(name, table, settings, serve_config()).items():
            file = to / path
            if file.is_file() and file.read_text(encoding="utf-8") == text:
                continue
            differing.append(path)
            if not check:
                write_file(file, text.encode())
    for path in differing:
        say(f"{'differs' if check else 'written'}: {to / path}")
    if not differing:
        say("all files are as the tables say")
    if check and differing:
        raise typer.Exit(1)


@app.command("nodes", cls=FarmCommand)
def nodes_command(as_json: JsonOption = False) -> None:
    """Show the kinds of nodes; the JSON is what `render --nodes` takes."""
    if as_json:
        print_json(NODES.model_dump(mode="json"))
        return
    table = Table("kind", "shape", "nodes", "idle", "priority", "AWS", "GCP", "$/h", box=None)
    for kind in NODES.kinds:
        gpus = f", {kind.gpus} {kind.accelerator.name}" if kind.accelerator else ""
        table.add_row(
            kind.name,
            f"{kind.cpus} cores, {kind.memory_gib} GiB{gpus}",
            f"{kind.min_nodes} to {kind.max_nodes}",
            f"{kind.idle_seconds} s",
            str(kind.priority),
            kind.aws_type,
            kind.gcp_type,
            f"{kind.dollars_per_hour:.2f}",
        )
    print_table(table)


def serve_config() -> str:
    """Ray Serve's configuration, where this copy of the farm has one."""
    return SERVE_CONFIG.read_text(encoding="utf-8") if SERVE_CONFIG.is_file() else ""


def read_nodes(path: Path) -> NodeTable:
    """A table of nodes from a file.

    Raises:
        InvalidRequestError: it cannot be read, or is none.
    """
    try:
        return NodeTable.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}; check the path") from error
    except ValidationError as error:
        raise InvalidRequestError(f"{path}: {describe(error)}") from error


def with_values(settings: Settings, values: list[str]) -> Settings:
    """Settings with some replaced; a list is written with commas.

    Raises:
        InvalidRequestError: no such setting, or a value that it cannot have.
    """
    changed: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or name not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise InvalidRequestError(f"--set {text}: write NAME=VALUE with one of {known}")
        changed[name] = value.split(",") if name == "worker_ips" else value
    try:
        return Settings.model_validate({**settings.model_dump(), **changed})
    except ValidationError as error:
        raise InvalidRequestError(f"--set: {describe(error)}") from error


if __name__ == "__main__":
    app()
