"""The `editfarm` command: every job of this package under one name.

A job's module (and with it Ray or torch) is imported when that job is run, so that help is quick.
"""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.console import EXIT_CODES
from jobs.extras import missing
from jobs.version import version_text

_OURS = ("farm", "actors", "serve", "jobs", "cluster")


@dataclass(frozen=True)
class Job:
    """A command: the module whose `app` it is, and its line in the list of commands."""

    module: str
    help: str


JOBS: Mapping[str, Job] = {
    "demo": Job("jobs.demo", "Edit the demo's held-out scenes into an empty store."),
    "edit": Job("jobs.edit", "Edit one image."),
    "edit-many": Job("jobs.edit_many", "Edit every line of a manifest."),
    "jobs": Job("jobs.control", "List, look at and steer the jobs of a store."),
    "report": Job("jobs.report", "Write the HTML report of a job anew."),
    "gallery": Job("jobs.gallery", "Make one picture of some edits: before, after, mask."),
    "artifacts": Job("jobs.artifacts", "List, download and delete what a store keeps."),
    "gc": Job("jobs.gc", "Remove what a store need not keep."),
    "methods": Job("jobs.methods", "List methods, and what may be set of each."),
    "evaluate": Job("jobs.evaluate", "Measure a method on held-out scenes."),
    "models": Job("jobs.models", "List, fetch, convert and check models."),
    "zoo": Job("jobs.zoo", "Look at the scenes world, train and measure its networks."),
    "serve": Job("jobs.serve_command", "Serve the HTTP API from this machine."),
    "keys": Job("jobs.keys", "Make, list and revoke API keys."),
    "doctor": Job("jobs.doctor", "Check that this machine can run the farm."),
    "status": Job("jobs.status", "Show machines, what waits for them, and why."),
    "top": Job("jobs.top", "Watch what backbones, edits and the store do."),
    "drain": Job("jobs.drain", "Empty a machine before it is taken away."),
    "cluster": Job("jobs.cluster", "Render and check the files of clouds and Kubernetes."),
}


class LazyGroup(TyperGroup):
    """Lists commands by `JOBS` alone and imports the one that is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(JOBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The entry for the list of commands: a name and a line of help."""
        del ctx
        if cmd_name not in JOBS:
            return None
        return TyperCommand(cmd_name, help=JOBS[cmd_name].help)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, Any]:
        """The command itself."""
        if args and args[0] not in JOBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], list(JOBS), n=2)
            meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        name, entry, rest = super().resolve_command(ctx, args)
        if name is not None:
            try:
                entry = typer.main.get_command(importlib.import_module(JOBS[name].module).app)
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] in _OURS:
                    raise
                ctx.fail(missing(name, error.name))
        return name, entry, rest


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    epilog=EXIT_CODES,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def editfarm(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Text-driven image editing on a farm of frozen networks.

    Results go to stdout (a table, or JSON lines with --json), everything else to stderr.
    """
    del version  # its callback has done all


def main() -> None:
    """Entry point of `editfarm`."""
    app(prog_name="editfarm")


if __name__ == "__main__":
    main()
