"""Jobs of a store: list them, look at one, pause, resume or cancel it, try again what failed.

    editfarm jobs list --store out/store
    editfarm jobs show 3f9a --store s3://bucket/edits --events
    editfarm jobs pause 3f9a
    editfarm jobs resume 3f9a
    editfarm jobs cancel 3f9a
    editfarm jobs retry-failed 3f9a

A wish reaches a running job within some seconds, wherever it runs: it lies in the store. A job
whose process is gone is resumed in this one.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from farm.errors import CorruptArtifactError, InvalidRequestError
from farm.storage.layout import jobs_prefix
from farm.storage.opening import open_store
from farm.storage.store import MissingKeyError, Store
from jobs.console import FarmCommand, JsonOption, command_app, print_json, print_table, say
from jobs.dispatch import Wish
from jobs.records import (
    CONTROL,
    EVENT_LOG,
    JOB,
    REPORT,
    TENANT,
    JobControl,
    JobFiles,
    JobRecord,
    JobStatus,
    JobSummary,
    find_job,
)
from jobs.report_rows import seconds_text
from jobs.segments import LogPlace, read_log
from jobs.showing import JsonView, TableView
from jobs.submission import run_submission, submission_of

_ALIVE_SECONDS = 30.0
_FOLLOW_SECONDS = 2.0
_SHOWN = 16

app = command_app("List, look at and steer the jobs of a store.")

StoreOption = Annotated[str, typer.Option(help="Path, file:// or s3:// of the jobs' store.")]
TenantOption = Annotated[str, typer.Option(help="Whose jobs.")]
JobArgument = Annotated[
    str | None, typer.Argument(metavar="[JOB]", help="Its name, or how it begins.")
]


def job_states(store: Store, tenant: str) -> Iterator[tuple[JobFiles, JobStatus | None]]:
    """All jobs of a tenant with how far they are; one that another version wrote says nothing.

    Raises:
        StoreError: the store cannot be read.
    """
    for name in store.names(jobs_prefix(tenant)):
        files = JobFiles(store, name, tenant)
        try:
            yield files, files.status()
        except CorruptArtifactError:
            yield files, None


def is_alive(status: JobStatus | None) -> bool:
    """Whether a process works on the job, as far as its status tells."""
    return (
        status is not None and not status.is_over and time.time() - status.updated < _ALIVE_SECONDS
    )


def ask(files: JobFiles, wish: Wish) -> None:
    """Leave a wish for the process that works on a job.

    Raises:
        InvalidRequestError: there is none.
    """
    if not is_alive(files.status()):
        raise InvalidRequestError(
            f"job {files.job} does not run: `editfarm jobs resume {files.job}` does the rest of it"
        )
    files.write(CONTROL, JobControl(wish=wish))


@app.command("list", cls=FarmCommand)
def list_command(
    store: StoreOption = "out/store", tenant: TenantOption = TENANT, as_json: JsonOption = False
) -> None:
    """All jobs, and how far they are."""
    columns = ["job", "state", "done", "failed", "left", "updated", "manifest"]
    table = Table(*columns, box=None)
    for files, status in job_states(open_store(store), tenant):
        about = {"job": files.job, **_about(status), "manifest": _manifest(files)}
        if as_json:
            print_json(about)
            continue
        age = "-" if status is None else f"{seconds_text(time.time() - status.updated)} ago"
        counts = [str(about.get(name, "-")) for name in ("state", "done", "failed", "left")]
        table.add_row(files.job, *counts, age, escape(str(about["manifest"])))
    if not as_json:
        print_table(table)


@app.command(cls=FarmCommand)
def show(
    job: JobArgument = None,
    store: StoreOption = "out/store",
    events: Annotated[bool, typer.Option("--events", help="Its events, as JSON lines.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Its events, until it has ended.")
    ] = False,
    tenant: TenantOption = TENANT,
    as_json: JsonOption = False,
) -> None:
    """One job: how far it is, what it was, and where its files lie."""
    files = find_job(open_store(store), tenant, job)
    if events or follow:
        for line in _events(files, follow=follow):
            typer.echo(line.decode())
        return
    status = files.status()
    about: dict[str, Any] = {"job": files.job, **_about(status), "manifest": _manifest(files)}
    try:
        summary: JobSummary | None = files.summary()
    except MissingKeyError:
        summary = None
    if summary is not None:
        about |= {"totals": summary.totals, "report": files.place(REPORT)}
    if as_json:
        print_json(about)
        return
    table = Table(show_header=False, box=None)
    for name, value in about.items():
        table.add_row(name.replace("_", " "), escape(_told(name, value)))
    print_table(table)


@app.command(cls=FarmCommand)
def pause(
    job: JobArgument = None, store: StoreOption = "out/store", tenant: TenantOption = TENANT
) -> None:
    """Let a running job start nothing more; what runs is finished."""
    files = find_job(open_store(store), tenant, job)
    ask(files, Wish.pause)
    say(f"job {files.job} pauses; `editfarm jobs resume {files.job}` lets it go on")


@app.command(cls=FarmCommand)
def cancel(
    job: JobArgument = None, store: StoreOption = "out/store", tenant: TenantOption = TENANT
) -> None:
    """Stop a running job; what is committed stays, and resuming it does the rest."""
    files = find_job(open_store(store), tenant, job)
    ask(files, Wish.cancel)
    say(f"job {files.job} stops")


@app.command(cls=FarmCommand)
def resume(
    job: JobArgument = None,
    store: StoreOption = "out/store",
    tenant: TenantOption = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Let a paused job go on; one whose process is gone goes on in this one."""
    files = find_job(open_store(store), tenant, job)
    if is_alive(files.status()):
        ask(files, Wish.run)
        say(f"job {files.job} goes on")
        return
    raise typer.Exit(_submit_again(files, retry_failed=False, as_json=as_json))


@app.command("retry-failed", cls=FarmCommand)
def retry_failed(
    job: JobArgument = None,
    store: StoreOption = "out/store",
    tenant: TenantOption = TENANT,
    report_file: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job again with all that failed, also what failed for good."""
    files = find_job(open_store(store), tenant, job)
    if is_alive(files.status()):
        raise InvalidRequestError(
            f"job {files.job} still runs: wait for its end, or cancel it first"
        )
    code = _submit_again(files, retry_failed=True, as_json=as_json, report_file=report_file)
    raise typer.Exit(code)


def _submit_again(
    files: JobFiles, *, retry_failed: bool, as_json: bool, report_file: Path | None = None
) -> int:
    """Run the job as it was submitted; the exit code.

    Raises:
        InvalidRequestError: it does not say how, or its manifest has changed.
    """
    try:
        record = files.document(JOB, JobRecord)
    except MissingKeyError as error:
        raise InvalidRequestError(
            f"job {files.job} does not say how it was submitted: submit its manifest again with "
            "`editfarm edit-many`"
        ) from error
    submission = submission_of(files, record)
    view = JsonView() if as_json else TableView()
    totals = run_submission(
        submission, view, retry_failed=retry_failed, report_file=report_file, job=files.job
    )
    return totals.exit_code


def _told(name: str, value: Any) -> str:
    """A figure as people read it."""
    if name in ("started", "updated"):
        when = datetime.fromtimestamp(value, UTC)
        return f"{when:%Y-%m-%d %H:%M:%S} UTC, {seconds_text(time.time() - value)} ago"
    if name == "running":
        return "\n".join(f"{e['name']}: {e['stage']} {e['step']}/{e['total']}" for e in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items() if one is not None)
    return "-" if value is None or value == "" else str(value)


def _about(status: JobStatus | None) -> dict[str, Any]:
    if status is None:
        return {"state": "unknown"}
    about = status.model_dump(mode="json", exclude={"schema_version", "job"}, exclude_none=True)
    if not status.is_over and not is_alive(status):
        about["state"] = "gone"
        about["reason"] = "its process ended without a word; resume it"
    return about


def _manifest(files: JobFiles) -> str:
    try:
        found = files.document(JOB, JobRecord).submission.get("manifest")
    except (MissingKeyError, CorruptArtifactError):
        return "-"
    return str(found or "-")


def _events(files: JobFiles, *, follow: bool) -> Iterator[bytes]:
    """Lines of the event log; with `follow` until the job has ended."""
    place = LogPlace()
    while True:
        over = not is_alive(files.status())  # asked first: what is written by then is read below
        for line, end in read_log(files.store, files.prefix(EVENT_LOG), place):
            place = end
            yield line
        if not follow or over:
            return
        time.sleep(_FOLLOW_SECONDS)


if __name__ == "__main__":
    app()
