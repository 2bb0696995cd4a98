"""What a job shows while it runs and when it has ended, whoever looks; no Typer here."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jobs.batch import Messages
from jobs.live import LiveView, live_view
from jobs.monitor import Figures
from jobs.outcomes import DoneEdit, FailedEdit, network_passes
from jobs.records import OutcomeSpool
from jobs.terminal import console, say

_TABLE_ROWS = 40
_FILE_COLUMNS = 120


class JobView(Protocol):
    """Told what happens to a job."""

    def note(self, text: str) -> None:
        """A sentence about the job."""
        ...

    def outcome(self, outcome: DoneEdit | FailedEdit) -> None:
        """An edit has its outcome, at once or later."""
        ...

    def live(self, missing: int) -> AbstractContextManager[LiveView]:
        """So many edits are to be run now."""
        ...

    def end(self, outcomes: OutcomeSpool) -> None:
        """All outcomes, at the end."""
        ...


class QuietView:
    """For callers that read the job's files."""

    def note(self, text: str) -> None:
        del text

    def outcome(self, outcome: DoneEdit | FailedEdit) -> None:
        del outcome

    @contextmanager
    def live(self, missing: int) -> Generator[LiveView, None, None]:
        del missing
        yield _Nothing()

    def end(self, outcomes: OutcomeSpool) -> None:
        del outcomes


class TableView:
    """For eyes: notes and progress on stderr, a table on stdout at the end."""

    def note(self, text: str) -> None:
        say(text)

    def outcome(self, outcome: DoneEdit | FailedEdit) -> None:
        del outcome

    def live(self, missing: int) -> AbstractContextManager[LiveView]:
        return live_view(console, missing)

    def end(self, outcomes: OutcomeSpool) -> None:
        screen = Console(highlight=False)
        if not screen.is_terminal:
            screen.width = _FILE_COLUMNS
        screen.print(outcome_table(islice(outcomes, _TABLE_ROWS), len(outcomes) - _TABLE_ROWS))


class JsonView(TableView):
    """For programs: notes and progress on stderr, each outcome as a line on stdout as it comes."""

    def __init__(self) -> None:
        self._screen = Console(highlight=False)

    def outcome(self, outcome: DoneEdit | FailedEdit) -> None:
        line = outcome.model_dump_json()
        self._screen.out(line, highlight=False)

    def end(self, outcomes: OutcomeSpool) -> None:
        del outcomes


def outcome_table(outcomes: Iterable[DoneEdit | FailedEdit], rest: int) -> Table:
    """One row an edit, and how many more there are."""
    table = Table("edit", "outcome", "seconds", "network passes", "target prompt", box=None)
    for outcome in outcomes:
        table.add_row(escape(outcome.name), *_cells(outcome))
    if rest > 0:
        table.add_row(f"and {rest} more", "", "", "", "")
    return table


def _cells(outcome: DoneEdit | FailedEdit) -> Iterator[str]:
    prompt = outcome.request.target_prompt if outcome.request else ""
    if isinstance(outcome, FailedEdit):
        yield from (f"[red]{outcome.kind}[/]", "", "", escape(prompt))
        return
    result = outcome.result
    yield "in the store before" if result.reused else "[green]done[/]"
    yield f"{outcome.seconds:.1f}"
    yield f"{network_passes(result.provenance.work):,}"
    yield escape(prompt)


class _Nothing:
    def running(self, messages: Messages) -> None:
        del messages

    def finished(self, outcome: DoneEdit | FailedEdit) -> None:
        del outcome

    def figures(self, figures: Figures) -> None:
        del figures
