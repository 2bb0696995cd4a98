"""A whole job: both passes over a manifest, and what is left in the store and shown afterwards."""

import shlex
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from farm.errors import InvalidManifestError
from farm.runner import versions
from farm.storage.store import check_writable
from jobs.batch import Batch, OpenRunner, Survey, run_missing, survey
from jobs.console import check_file, console, print_json, print_table, say
from jobs.live import live_view
from jobs.outcomes import DoneEdit, FailedEdit, Totals, network_passes
from jobs.records import OUTCOMES, SUMMARY, JobFiles, JobSummary, OutcomeSpool, outcome_spool
from jobs.report import write_report
from jobs.report_rows import seconds_text

_TABLE_ROWS = 40


@dataclass(frozen=True)
class JobOptions:
    """How a job is run and what it shows.

    Attributes:
        max_in_flight: edits that run at once.
        report: whether to write the HTML report.
        report_file: where to write it too, besides the store.
        as_json: outcomes on stdout as JSON lines, as they come, instead of a table at the end.
    """

    max_in_flight: int = 8
    report: bool = True
    report_file: Path | None = None
    as_json: bool = False


@dataclass(frozen=True)
class _Ledger:
    """Takes each outcome once."""

    spool: OutcomeSpool
    totals: Totals
    as_json: bool

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        self.spool.add(outcome)
        self.totals.add(outcome)
        if self.as_json:
            print_json(outcome.model_dump(mode="json"))


def run_job(batch: Batch, open_runner: OpenRunner, options: JobOptions) -> Totals:
    """Check all lines, run what is missing, leave outcomes and a report in the store.

    Raises:
        InvalidManifestError: the manifest cannot be read, or has no line.
        InvalidRequestError: the report's file cannot be written.
        StoreError: the store cannot be read or written.
        FarmError: the farm cannot be started.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    if options.report_file is not None:
        check_file(options.report_file)
    check_writable(batch.store)
    files = JobFiles(batch.store, batch.job, batch.tenant)
    with outcome_spool() as spool:
        ledger = _Ledger(spool, Totals(), options.as_json)
        backbones = _run(batch, open_runner, ledger, options.max_in_flight)
        seconds = time.monotonic() - clock
        summary = _summary(batch, ledger.totals, started, seconds, backbones)
        files.put(OUTCOMES, b"".join(spool.lines()))
        files.put(SUMMARY, summary.model_dump_json(indent=1).encode())
        if not options.as_json:
            print_table(_table(spool))
        if options.report:
            say(f"report: {write_report(files, summary, spool, options.report_file)}")
    say(_last_line(ledger.totals, seconds))
    return ledger.totals


def _run(
    batch: Batch, open_runner: OpenRunner, ledger: _Ledger, max_in_flight: int
) -> list[dict[str, Any]]:
    """Both passes; descriptions of the backbones that were needed."""
    found = Survey(set())
    for outcome in survey(batch, found):
        ledger.add(outcome)
        if isinstance(outcome, FailedEdit):
            say(f"failed {outcome.name}: {outcome.message} ({outcome.kind})")
    if not found.settled and not found.missing:
        raise InvalidManifestError(f"{batch.manifest} has no line: write one edit a line, as JSON")
    totals = ledger.totals
    say(f"{found.missing} edits to do, {totals.done} in the store, {totals.failed} refused")
    if not found.missing:
        return []
    with open_runner() as runner:
        with live_view(console, found.missing) as view:
            for outcome in run_missing(
                batch, runner, found, in_flight=max_in_flight, watch=view.running
            ):
                ledger.add(outcome)
                view.finished(outcome)
        return runner.describe()


def _summary(
    batch: Batch,
    totals: Totals,
    started: datetime,
    seconds: float,
    backbones: list[dict[str, Any]],
) -> JobSummary:
    return JobSummary(
        job=batch.job,
        command=_command_line(),
        manifest=str(batch.manifest),
        model_set=batch.model_set.name,
        weights=batch.model_set.digests,
        versions=versions(),
        started=f"{started:%Y-%m-%d %H:%M:%S} UTC",
        seconds=seconds,
        totals=totals.as_dict(),
        backbones=backbones,
    )


def _command_line() -> str:
    program = Path(sys.argv[0])
    called = ["python", "-m", f"jobs.{program.stem}"] if program.suffix == ".py" else [program.name]
    return shlex.join([*called, *sys.argv[1:]])


def _table(outcomes: Iterable[DoneEdit | FailedEdit]) -> Table:
    table = Table("edit", "outcome", "seconds", "network passes", "target prompt", box=None)
    rest = 0
    for number, outcome in enumerate(outcomes):
        if number >= _TABLE_ROWS:
            rest += 1
            continue
        table.add_row(escape(outcome.name), *_cells(outcome))
    if rest:
        table.add_row(f"and {rest} more", "", "", "", "")
    return table


def _cells(outcome: DoneEdit | FailedEdit) -> tuple[str, str, str, str]:
    prompt = outcome.request.target_prompt if outcome.request else ""
    if isinstance(outcome, FailedEdit):
        return f"[red]{outcome.kind}[/]", "", "", escape(prompt)
    result = outcome.result
    return (
        "in the store before" if result.reused else "[green]done[/]",
        f"{outcome.seconds:.1f}",
        f"{network_passes(result.provenance.work):,}",
        escape(prompt),
    )


def _last_line(totals: Totals, seconds: float) -> str:
    return (
        f"{totals.done} done ({totals.reused} in the store before), {totals.failed} failed, "
        f"{seconds_text(seconds)}"
    )
