"""What the pages hold besides sentences: fenced blocks, commands, code in the line, links."""

import re
import shlex
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import typer

from jobs.cli import JOBS, app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SHELL = ("", "bash", "sh", "console")
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^\n)((?:^    .*\n)+)", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`(editfarm [^`]+)`(?!`)")
errors = sys.modules[typer.BadParameter.__module__]
"""Of the click that typer brings along."""
_PLACEHOLDER = re.compile(r"…|\.\.\.")


@dataclass(frozen=True)
class Block:
    """A block of a page: its language as written, its text."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text[:40]!r}"


def all_blocks() -> list[Block]:
    """All fenced blocks of all pages."""
    return [
        Block(page, language, text)
        for page in PAGES
        for _, language, text in _FENCED.findall(page.read_text(encoding="utf-8"))
    ]


def blocks(*languages: str) -> list[Block]:
    """Those in one of these languages."""
    return [block for block in all_blocks() if block.language in languages]


@dataclass(frozen=True)
class Command:
    """A call of `editfarm` on a page; one with a placeholder is not whole."""

    page: Path
    line: str

    @property
    def is_whole(self) -> bool:
        return _PLACEHOLDER.search(self.line) is None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.line}"


def block_commands() -> list[Command]:
    """Calls in blocks, each with its continuation lines."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = [text for _, language, text in _FENCED.findall(text) if language in SHELL]
        shown += _INDENTED.findall(_FENCED.sub("", text))
        for block in shown:
            for line in block.replace("\\\n", " ").splitlines():
                match = re.match(r"\s*(?:\$ )?(?:\S*/)?(editfarm .*)", line)
                if match:
                    found += [Command(page, one) for one in _alternatives(match[1])]
    return found


def inline_commands() -> list[Command]:
    """Calls in the running text and in tables."""
    found = []
    for page in PAGES:
        for text in _INLINE.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
            found += [Command(page, one) for one in _alternatives(" ".join(text.split()))]
    return found


def _alternatives(line: str) -> list[str]:
    """`editfarm jobs pause|resume 3f9a` is two commands."""
    lines = [""]
    for word in line.split(" "):
        choices = word.split("|") if re.fullmatch(r"[a-z-]+(\|[a-z-]+)+", word) else [word]
        lines = [f"{line} {choice}".strip() for line in lines for choice in choices]
    return lines


@cache
def whole_cli():
    """The command as it is run."""
    return typer.main.get_command(app)


def parse(line: str, *, whole: bool) -> None:
    """Parse a call as the program would, and run nothing.

    Raises:
        ClickException: no such command or option, or a value that is none; where `whole`, a
            needed one that is not there, too.
    """
    words = shlex.split(_PLACEHOLDER.sub("", line), comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in (">", "|", "&&")), None)]
    command, arguments = whole_cli(), words[1:]
    context = typer.Context(command, info_name="editfarm")
    while hasattr(command, "resolve_command"):
        if not arguments or arguments[0].startswith("-"):
            assert not whole or arguments or command is not whole_cli(), f"no command in {line!r}"
            return
        name, command, arguments = command.resolve_command(context, arguments)
        context = typer.Context(command, info_name=name, parent=context)
    try:
        command.make_context(context.info_name, list(arguments), parent=context.parent)
    except (errors.BadParameter, errors.BadOptionUsage):  # what a placeholder stands for
        if whole:
            raise
    except typer.Exit:
        pass  # --help


def leaves():
    """Every command that does something, by its path."""
    root = typer.Context(whole_cli(), info_name="editfarm")
    found = []
    for name in JOBS:
        _, command, _ = whole_cli().resolve_command(root, [name])
        if hasattr(command, "resolve_command"):
            found += [((name, sub), command.commands[sub]) for sub in command.commands]
        else:
            found.append(((name,), command))
    return found
