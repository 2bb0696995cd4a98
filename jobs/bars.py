"""How far something is that takes longer than a glance: a bar on a terminal, lines elsewhere.

For work that is no edit; what edits show is in `jobs.live`.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from jobs.terminal import console

Unit = Literal["steps", "bytes"]


class Show(Protocol):
    """Told how much is done by now, and a word about it."""

    def __call__(self, now: int, note: str = "") -> None: ...


_LINE_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_WIDTH = 28


@contextmanager
def bar(
    title: str, total: int, unit: Unit = "steps", *, done: int = 0, screen: Console = console
) -> Generator[Show, None, None]:
    """Shows how much of a whole is done and how long the rest will take.

    Args:
        title: what it is.
        total: the whole.
        unit: what is counted.
        done: of it before.
        screen: where to.
    """
    if not screen.is_terminal:
        yield Lines(title, total, unit, done, screen)
        return
    counted = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    note = TextColumn("{task.fields[note]}", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(_WIDTH), counted, note)
    with Progress(*columns, TimeRemainingColumn(), console=screen, transient=True) as progress:
        task = progress.add_task(escape(title), total=total, completed=done, note="")

        def show(now: int, note: str = "") -> None:
            progress.update(task, completed=min(now, total), note=note)

        yield show


class Lines:
    """A line now and then."""

    def __init__(self, title: str, total: int, unit: Unit, done: int, screen: Console) -> None:
        self._title, self._total, self._begun = title, total, done
        self._unit: Unit = unit
        self._screen = screen
        self._started = self._last = time.monotonic()

    def __call__(self, now: int, note: str = "") -> None:
        moment = time.monotonic()
        if moment - self._last < _LINE_SECONDS:
            return
        self._last = moment
        done = min(now, self._total)
        parts = [f"{self._title}: {_counted(done, self._total, self._unit)}", note]
        if done > self._begun:
            rate = (done - self._begun) / (moment - self._started)
            parts.append(f"{_time_text((self._total - done) / rate)} to go")
        line = ", ".join(part for part in parts if part)
        self._screen.print(line, markup=False, soft_wrap=True)


class Told:
    """A bar for each of several wholes, one after the other, as somebody tells of them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._of: tuple[str, int] | None = None
        self._show: Show = _nowhere

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._of != (what, total):
            self._stack.close()
            self._show = self._stack.enter_context(bar(what, total))
            self._of = (what, total)
        self._show(done)
        if done >= total:
            self._stack.close()
            self._of, self._show = None, _nowhere


def _nowhere(now: int, note: str = "") -> None:
    del now, note


@contextmanager
def watched(
    title: str,
    total: int,
    look: Callable[[], int],
    unit: Unit = "steps",
    *,
    done: int = 0,
    note: Callable[[], str] = str,
) -> Generator[None, None, None]:
    """A bar for work that does not say itself how far it is; somebody looks now and then.

    Args:
        title: what it is.
        total: the whole.
        look: says how much is done by now.
        unit: what is counted.
        done: of it before.
        note: gives a word about it.
    """
    ended = threading.Event()
    with bar(title, total, unit, done=done) as show:

        def look_again() -> None:
            while not ended.wait(_LOOK_SECONDS):
                show(look(), note())

        looking = threading.Thread(target=look_again, daemon=True)
        looking.start()
        try:
            yield
        finally:
            ended.set()
            looking.join()


@contextmanager
def growing(title: str, folder: Path, total: int) -> Generator[None, None, None]:
    """A bar of the bytes that come into a folder, of which there will be about so many."""
    before = tree_bytes(folder)
    with watched(title, total, lambda: tree_bytes(folder) - before, "bytes"):
        yield


def tree_bytes(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; what vanishes meanwhile counts nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(map(_bytes, files))


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0


def _counted(done: int, total: int, unit: Unit) -> str:
    if unit == "bytes":
        return f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
    return f"{done:,} of {total:,}"


def _time_text(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
