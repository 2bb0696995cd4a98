"""How far an edit is: a bar in a terminal, a bar in a notebook's cell, or somebody's function."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from farm.notebook.edited import notebook_display
from farm.progress import Progress

Watch: TypeAlias = bool | Callable[[Progress], None]
"""Whether to show progress; or who is told of each step."""

_REFRESH_SECONDS = 0.2


@contextmanager
def watching(watch: Watch) -> Generator[Callable[[Progress], None], None, None]:
    """What a place tells its steps to; what is shown goes away at the end."""
    console = Console(stderr=True)
    if callable(watch):
        yield watch
    elif not watch:
        yield lambda _: None
    elif notebook_display() is not None:
        with _in_a_cell() as tell:
            yield tell
    elif console.is_terminal:
        with _on_a_terminal(console) as tell:
            yield tell
    else:
        yield lambda _: None


@contextmanager
def _on_a_terminal(console: Console) -> Generator[Callable[[Progress], None], None, None]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        stage = ""
        task = bars.add_task("preparing", total=None)

        def tell(progress: Progress) -> None:
            nonlocal stage
            if progress.stage != stage:
                stage = progress.stage
                bars.reset(task, description=stage_text(stage), total=progress.total or None)
            bars.update(task, completed=progress.step)

        yield tell


@contextmanager
def _in_a_cell() -> Generator[Callable[[Progress], None], None, None]:
    display: Any = notebook_display()
    cell = display(_Bar("preparing", 0, 0, None), display_id=True)
    view = _CellView(cell)
    try:
        yield view.tell
    finally:
        cell.update(_Bar("", 0, 0, None))


class _CellView:
    """Redraws a cell's bar a few times a second."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self._stage = ""
        self._began, self._drawn = 0.0, float("-inf")

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._began, self._drawn = progress.stage, now, float("-inf")
        if now - self._drawn < _REFRESH_SECONDS:
            return
        self._drawn = now
        left = None
        if progress.step and progress.total:
            left = (now - self._began) / progress.step * (progress.total - progress.step)
        self._cell.update(_Bar(stage_text(self._stage), progress.step, progress.total, left))


class _Bar:
    """A bar as a notebook draws it; an empty label is nothing."""

    def __init__(self, label: str, step: int, total: int, seconds_left: float | None) -> None:
        self.label, self.step, self.total = label, step, total
        self.seconds_left = seconds_left

    def __repr__(self) -> str:
        return f"{self.label} {self.step}/{self.total}" if self.label else ""

    def _repr_html_(self) -> str:
        if not self.label:
            return ""
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        bar = f"<progress value={self.step} max={max(1, self.total)}></progress>"
        return f"{bar} {self.label} {self.step}/{self.total}{left}"


def stage_text(stage: str) -> str:
    """A stage's name for eyes: `style_diffusion.inversion` → inversion."""
    return stage.rpartition(".")[2].replace("_", " ")
