"""What runs right now: moving bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.batch import Messages, running_name
from jobs.monitor import Figures
from jobs.outcomes import DoneEdit, FailedEdit
from jobs.report_rows import seconds_text

_LINE_SECONDS = 15.0
_WIDTH = 28


class LiveView(Protocol):
    """Told what happens."""

    def running(self, messages: Messages) -> None:
        """The latest step of each running edit."""
        ...

    def finished(self, outcome: DoneEdit | FailedEdit) -> None:
        """An edit has its outcome."""
        ...

    def figures(self, figures: Figures) -> None:
        """How the whole job goes."""
        ...


@contextmanager
def live_view(console: Console, total: int) -> Generator[LiveView, None, None]:
    """Bars where they can move, else lines; the terminal is left as it was."""
    if not console.is_terminal:
        yield Lines(console, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(_WIDTH),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, total)


class Bars:
    """One bar for the whole job, and one for each running edit below it."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._whole = self._progress.add_task("[bold]edits", total=total, state="")
        self._edits: dict[str, TaskID] = {}
        self._done = self._failed = 0
        self._figures = ""
        self._show_counts()

    def running(self, messages: Messages) -> None:
        for name in self._edits.keys() - messages.keys():
            self._drop(name)
        for name, message in messages.items():
            if name not in self._edits:
                label = f"  {escape(_display(name)):.40}"
                self._edits[name] = self._progress.add_task(label, state="")
            self._progress.update(
                self._edits[name],
                total=message["total"] or None,
                completed=message["step"],
                state=_state(message["stage"], message["step"], message["total"], message["loss"]),
            )
        self._show_counts()

    def finished(self, outcome: DoneEdit | FailedEdit) -> None:
        self._done += isinstance(outcome, DoneEdit)
        self._failed += isinstance(outcome, FailedEdit)
        self._drop(running_name(outcome.line, outcome.name))
        self._progress.console.print(_finished_line(outcome), markup=False, soft_wrap=True)
        self._progress.advance(self._whole)
        self._show_counts()

    def figures(self, figures: Figures) -> None:
        self._figures = figures_text(figures)
        self._show_counts()

    def _drop(self, name: str) -> None:
        if name in self._edits:
            self._progress.remove_task(self._edits.pop(name))

    def _show_counts(self) -> None:
        counts = f"{self._done} done, {self._failed} failed, {len(self._edits)} running"
        state = f"{counts}\n{self._figures}" if self._figures else counts
        self._progress.update(self._whole, state=state)


class Lines:
    """A line for each finished edit, and now and then what runs."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._finished = 0
        self._figures = ""
        self._next_line = time.monotonic() + _LINE_SECONDS

    def figures(self, figures: Figures) -> None:
        self._figures = figures_text(figures)

    def running(self, messages: Messages) -> None:
        if time.monotonic() < self._next_line or not messages:
            return
        self._next_line = time.monotonic() + _LINE_SECONDS
        steps: dict[tuple[str, int], list[int]] = {}
        for message in messages.values():
            steps.setdefault((message["stage"], message["total"]), []).append(message["step"])
        shown = [
            f"{len(found)} in {_short(stage)}"
            + (f", step {_span(found)} of {total}" if total else "")
            for (stage, total), found in sorted(steps.items())
        ]
        self._print("running: " + "; ".join(shown))
        if self._figures:
            self._print(f"  {self._figures}")

    def finished(self, outcome: DoneEdit | FailedEdit) -> None:
        self._finished += 1
        self._print(f"[{self._finished}/{self._total}] {_finished_line(outcome)}")
        self._next_line = time.monotonic() + _LINE_SECONDS

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


def figures_text(figures: Figures) -> str:
    """Speed, time to go, and how busy the backbones are, as far as they are known."""
    parts: list[str] = []
    if figures.edits_per_minute is not None:
        parts.append(f"{figures.edits_per_minute:.3g} edits/min")
    if figures.eta_seconds is not None and figures.left:
        parts.append(f"{seconds_text(figures.eta_seconds)} to go")
    if figures.busy_share is not None:
        parts.append(f"backbones {figures.busy_share:.0%} busy")
    if figures.mean_batch is not None:
        parts.append(f"mean batch {figures.mean_batch:.1f}")
    return ", ".join(parts)


def _display(name: str) -> str:
    """A running edit's name without the number of its line."""
    return name.partition(":")[2] or name


def _state(stage: str, step: int, total: int, loss: float | None) -> str:
    shown = "" if loss is None else f", loss {loss:.2g}"
    if not total:
        return _short(stage)
    return f"{_short(stage)} {step}/{total}{shown}"


def _span(steps: list[int]) -> str:
    first, last = min(steps), max(steps)
    return str(first) if first == last else f"{first} to {last}"


def _short(stage: str) -> str:
    """A stage's name without its method's."""
    return stage.rpartition(".")[2]


def _finished_line(outcome: DoneEdit | FailedEdit) -> str:
    if isinstance(outcome, FailedEdit):
        return f"failed {outcome.name}: {outcome.message} ({outcome.kind})"
    if outcome.result.reused:
        return f"done {outcome.name}: was in the store"
    note = ", inversion reused" if outcome.result.provenance.stage_reused else ""
    return f"done {outcome.name}: {seconds_text(outcome.seconds)}{note}"
