"""How every command speaks: results on stdout, the rest on stderr, an error as one clear line."""

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperCommand

from farm.errors import FarmError
from jobs.terminal import check_file, console, say, write_file

__all__ = [
    "EXIT_CODES",
    "FarmCommand",
    "JsonOption",
    "ModelSetOption",
    "check_file",
    "command_app",
    "console",
    "print_json",
    "print_table",
    "say",
    "say_error",
    "write_file",
]

EXIT_CODES = """\
Exit codes:

0  everything was done

1  some edits failed

2  the request, the manifest or the command line is wrong

3  a store or a backbone is not available

130  interrupted
"""
INTERRUPTED = 130
_FILE_COLUMNS = 120

JsonOption = Annotated[bool, typer.Option("--json", help="Results as JSON lines.")]
ModelSetOption = Annotated[
    str, typer.Option(help="A model set's name (see `editfarm models list`), or its folder.")
]


class FarmCommand(TyperCommand):
    """A command whose `FarmError`s end it with one line and the error's own exit code.

    Its help ends with the examples of the docstring of its module.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        module = sys.modules[getattr(self.callback, "__module__", __name__)]
        examples = examples_of(module.__doc__ or "", ctx.command_path)
        shown = [f"[dim]$[/dim] {escape(line)}" for line in examples]
        self.epilog = "\n\n".join(["Examples:", *shown, "Exit codes: `editfarm --help`"])
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except FarmError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            say("interrupted: what was committed stays, the same command does the rest")
            raise typer.Exit(INTERRUPTED) from interrupt


def examples_of(text: str, command: str) -> list[str]:
    """Lines of a docstring that show a command, each whole; those of this command, if some are.

    Args:
        text: the docstring of a module.
        command: the command's path, as "editfarm jobs list".
    """
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    found = [" ".join(line.split()) for line in lines if line.startswith("editfarm ")]
    own = [line for line in found if f"{line} ".startswith(f"{command} ")]
    return own or found


def command_app(help_text: str | None = None) -> typer.Typer:
    """A Typer application without locals in tracebacks; `editfarm` itself has shell completion."""
    return typer.Typer(
        add_completion=False, pretty_exceptions_show_locals=False, help=help_text, epilog=EXIT_CODES
    )


def say_error(error: FarmError) -> None:
    """`error: …` on stderr, with the kind of error."""
    console.print("error:", style="bold red", end=" ")
    console.print(f"{error.message} ({type(error).__name__})", markup=False, soft_wrap=True)


def print_json(record: Mapping[str, Any]) -> None:
    """One result as one line on stdout."""
    typer.echo(json.dumps(record, ensure_ascii=False))


def print_table(table: Table) -> None:
    """A result for eyes, on stdout."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen.width = _FILE_COLUMNS
    screen.print(table)
