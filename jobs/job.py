"""A whole job: both passes over a manifest, and what is left in the store and shown afterwards."""

import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from farm.errors import FarmError, InvalidManifestError, StoreError
from farm.runner import versions
from farm.runner.retention import check_quota
from farm.storage.patient import PatientStore
from farm.storage.store import check_writable
from jobs.batch import Batch, EditRunner, Messages, OpenRunner, Survey, run_missing, survey
from jobs.called import command_line
from jobs.dispatch import Dispatcher, Flight, Limits, Stopped, Wish
from jobs.history import empty_history, load_history
from jobs.live import LiveView
from jobs.monitor import Monitor
from jobs.outcome_table import write_csv
from jobs.outcomes import DoneEdit, FailedEdit, Totals
from jobs.patience import Patience
from jobs.records import (
    CONTROL,
    JOB,
    OUTCOME_LOG,
    OUTCOME_TABLE,
    OUTCOMES,
    SUMMARY,
    JobControl,
    JobFiles,
    JobRecord,
    JobSummary,
    OutcomeSpool,
    outcome_spool,
)
from jobs.report_rows import seconds_text
from jobs.reporting import write_report
from jobs.showing import JobView, TableView
from jobs.terminal import check_file

_CHECK_PATIENCE = 5.0  # seconds for a store that does not answer at the start
_FRESH_SECONDS = 15.0
_NOTE_SECONDS = 10.0
_NOTED = {
    "retried": "{edit} failed ({kind}: {error}); again in {pause:.0f} s",
    "hung": "{edit} hangs during {during}: stopping it",
    "restarted backbones": "every edit hangs: restarting the backbones",
    "waiting": "waiting for the machine: {error}",
    "recovered": "the machine is well again after {seconds:.0f} s",
    "stopping": "stopping ({reason}): checkpoints stay in the store",
    "wish": "somebody said: {wish}",
}


@dataclass(frozen=True)
class JobOptions:
    """How a job is run and what it leaves.

    Attributes:
        limits: of time, cost and number at once.
        edit_accelerator_seconds: that one edit may cost; no limit if None.
        retry_failed: also try again what failed for good.
        report: whether to write the HTML report.
        report_file: where to write it too, besides the store.
        submission: how to submit the job again, for job.json.
    """

    limits: Limits = field(default_factory=Limits)
    edit_accelerator_seconds: float | None = None
    retry_failed: bool = False
    report: bool = True
    report_file: Path | None = None
    submission: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class _Run:
    """One run of a job: takes each outcome once."""

    batch: Batch
    options: JobOptions
    view: JobView
    files: JobFiles
    monitor: Monitor
    spool: OutcomeSpool
    totals: Totals

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        self.spool.add(outcome)
        self.totals.add(outcome)
        self.view.outcome(outcome)

    def note(self, kind: str, about: Mapping[str, Any]) -> None:
        """Something out of the ordinary, for the log and for eyes."""
        self.monitor.event(kind, about)
        if kind in _NOTED:
            self.view.note(_NOTED[kind].format(**about))

    def survey(self) -> Survey:
        """First pass.

        Raises:
            InvalidManifestError: the manifest has no line.
        """
        found, noted = Survey(), time.monotonic()
        with empty_history() as history:
            load_history(history, self.batch.store, self.files.prefix(OUTCOME_LOG))
            if self.options.retry_failed:
                history.forget_failed()
            for outcome in survey(self.batch, found, history):
                self.add(outcome)
                self.monitor.settled(outcome, is_new=found.latest_is_new)
                self.monitor.tick()
                if isinstance(outcome, FailedEdit) and found.latest_is_new:
                    self.view.note(f"failed {outcome.name}: {outcome.message} ({outcome.kind})")
                if time.monotonic() - noted > _NOTE_SECONDS:
                    noted = time.monotonic()
                    self.view.note(f"{found.total:,} edits checked")
        if not found.total:
            raise InvalidManifestError(
                f"{self.batch.name} has no line: write one edit a line, as JSON"
            )
        return found

    def run_missing(self, open_runner: OpenRunner, found: Survey) -> list[dict[str, Any]]:
        """Second pass; descriptions of the backbones."""
        with ExitStack() as stack:
            with self.monitor.starting():
                runner = stack.enter_context(open_runner())
            flight = runner.flight(
                budget=self.options.edit_accelerator_seconds,
                hang_seconds=self.options.limits.hang_seconds,
            )
            backbones = _described(runner)
            self.monitor.replicas = max(1, len(backbones))
            with self.view.live(found.missing) as live:
                dispatcher = self._dispatcher(flight, live)
                patience = self._patience(dispatcher)
                for outcome in run_missing(self.batch, dispatcher.run, found, patience):
                    self.add(outcome)
                    self.monitor.ended(outcome)
                    live.finished(outcome)
                    self.monitor.tick()
            stopped = dispatcher.stopped or (Stopped.cancelled if patience.gave_up else None)
            if stopped is not None:
                self.totals.stopped = stopped.value
                self.totals.left = found.total - len(self.spool)
            return _described(runner) or backbones  # what they have loaded by now

    def _dispatcher(self, flight: Flight, live: LiveView) -> Dispatcher:
        def watch(messages: Messages) -> None:
            self.monitor.watch(messages, flight.load())
            live.running(messages)
            live.figures(self.monitor.figures())
            self.monitor.tick()

        return Dispatcher(
            flight,
            self.options.limits,
            watch=watch,
            wish=self.monitor.wish,
            is_store_well=self._is_store_well,
            note=self.note,
        )

    def _patience(self, dispatcher: Dispatcher) -> Patience:
        """For what is done inside of the dispatcher's loop, which stands still meanwhile."""

        def meanwhile() -> bool:
            dispatcher.watch(dispatcher.flight.messages())
            return self.monitor.wish() is not Wish.cancel

        return Patience(self.options.limits.patience, meanwhile, self.note)

    def _is_store_well(self) -> bool:
        try:
            self.monitor.files.store.exists("probes/health")
        except StoreError:
            return False
        return True

    def finish(self, seconds: float, started: datetime, backbones: list[dict[str, Any]]) -> None:
        """Leave the job's files."""
        summary = _summary(self.batch, self.totals, started, seconds, backbones)
        with tempfile.TemporaryDirectory(prefix="editfarm-") as folder:
            lines, table = Path(folder) / "lines", Path(folder) / "table"
            with lines.open("wb") as file:
                file.writelines(self.spool.lines())
            write_csv(table, self.spool)
            self.files.store.put_file(self.files.key(OUTCOMES), lines)
            self.files.store.put_file(self.files.key(OUTCOME_TABLE), table)
        self.files.write(SUMMARY, summary)
        self.view.end(self.spool)
        if self.options.report:
            place = write_report(self.files, summary, self.spool, self.options.report_file)
            self.view.note(f"report: {place}")


def run_job(
    batch: Batch, open_runner: OpenRunner, options: JobOptions, view: JobView | None = None
) -> Totals:
    """Check all lines, run what is missing, leave outcomes and a report in the store.

    Raises:
        InvalidManifestError: the manifest cannot be read, or has no line.
        InvalidRequestError: the report's file cannot be written.
        UnusableStoreError: the store ignores conditions, or the tenant's quota is used up.
        StoreError: the store cannot be read or written.
        FarmError: the farm cannot be started.
    """
    view = view or TableView()
    started, clock = datetime.now(UTC), time.monotonic()
    if options.report_file is not None:
        check_file(options.report_file)
    checked = PatientStore(batch.store, patience=_CHECK_PATIENCE)
    check_writable(checked)
    check_quota(checked, batch.tenant)
    name = f"{started:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:6]}"
    monitor = Monitor(JobFiles(batch.store, batch.job, batch.tenant), name)
    batch = replace(batch, store=PatientStore(batch.store))
    files = JobFiles(batch.store, batch.job, batch.tenant)
    _register(files, options, started, view)
    with outcome_spool() as spool:
        run = _Run(batch, options, view, files, monitor, spool, Totals())
        try:
            monitor.tick(force=True)
            backbones = _both_passes(run, open_runner)
            run.finish(time.monotonic() - clock, started, backbones)
        except KeyboardInterrupt:
            _close_quietly(run, "interrupted", "")
            raise
        except FarmError as error:
            _close_quietly(run, "stopped", error.message)
            raise
        stopped = run.totals.stopped
        monitor.close("finished" if stopped is None else "stopped", stopped or "")
    view.note(_last_line(run.totals, time.monotonic() - clock))
    return run.totals


def _both_passes(run: _Run, open_runner: OpenRunner) -> list[dict[str, Any]]:
    found = run.survey()
    totals = run.totals
    run.view.note(
        f"{found.missing} edits to do, {totals.done} in the store, {totals.failed} refused"
    )
    run.monitor.begin(found.missing, found.total)
    return run.run_missing(open_runner, found) if found.missing else []


def _described(runner: EditRunner) -> list[dict[str, Any]]:
    """What the backbones say of themselves; nothing where one is gone: no job stops for that."""
    try:
        return runner.describe()
    except FarmError:
        return []


def _register(files: JobFiles, options: JobOptions, started: datetime, view: JobView) -> None:
    """Say in the store that this job runs, and what would submit it again."""
    with suppress(FarmError):  # another version's status is nobody's business here
        status = files.status()
        if status is not None and not status.is_over:
            age = time.time() - status.updated
            if age < _FRESH_SECONDS:
                view.note(
                    f"this job seems to run already, as process {status.pid} on {status.host}: "
                    "each edit is committed once, whoever is first"
                )
    submitted = f"{started:%Y-%m-%d %H:%M:%S} UTC"
    record = JobRecord(
        submission=dict(options.submission), command=command_line(), submitted=submitted
    )
    files.write(JOB, record)
    files.write(CONTROL, JobControl())


def _close_quietly(run: _Run, state: Any, reason: str) -> None:
    with suppress(StoreError):
        run.monitor.close(state, reason, patience=_CHECK_PATIENCE)


def _summary(
    batch: Batch,
    totals: Totals,
    started: datetime,
    seconds: float,
    backbones: list[dict[str, Any]],
) -> JobSummary:
    return JobSummary(
        job=batch.job,
        command=command_line(),
        manifest=batch.name,
        model_set=batch.model_set.name,
        weights=batch.model_set.digests,
        versions=versions(),
        started=f"{started:%Y-%m-%d %H:%M:%S} UTC",
        seconds=seconds,
        totals=totals.as_dict(),
        backbones=backbones,
    )


def _last_line(totals: Totals, seconds: float) -> str:
    left = f", {totals.left} left ({totals.stopped})" if totals.stopped is not None else ""
    return (
        f"{totals.done} done ({totals.reused} in the store before), {totals.failed} failed{left}, "
        f"{seconds_text(seconds)}"
    )
