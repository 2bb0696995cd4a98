"""A job of many edits as it was asked for, and its run: what every door calls; no Typer here."""

import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from farm.errors import CorruptArtifactError, InvalidManifestError
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs.batch import Batch
from jobs.dispatch import Limits
from jobs.importers import JSONL, Reading
from jobs.job import JobOptions, run_job
from jobs.outcomes import Totals
from jobs.records import TENANT, JobFiles, JobRecord, job_name
from jobs.runners import choose_runner
from jobs.showing import JobView
from jobs.sources import is_remote, local_copy


@dataclass(frozen=True)
class Submission:
    """Everything that says which edits are to be done, and how; plain values.

    Attributes:
        manifest: a path, or `s3://bucket/key`.
        output: the store's address.
        form: of the manifest (`jobs.importers.FORMS`).
        parameters: of the method, for lines that do not set them.
        from_case: first case that counts, in forms that have cases.
        end_case: case to stop before.
        variations: seeds of each edit.
        methods: to compare; none for each line's own.
        method: of lines that name none.
        model_set: a name or a folder.
        beside: model sets that other doors serve on the same GPUs.
        backbones: of the farm that are always there.
        max_backbones: how many there may be while queues are long; None: one for each GPU that Ray
            has when the job begins.
        tenant: whose job.
        max_in_flight: edits that run at once.
        hang_seconds: see `jobs.dispatch.Limits`.
        patience: see there.
        max_accelerator_seconds: that the job may cost.
        edit_accelerator_seconds: that one edit may cost.
        inline: in this process, without Ray.
    """

    manifest: str
    output: str
    form: str = JSONL
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    from_case: int | None = None
    end_case: int | None = None
    variations: int = 1
    methods: tuple[str, ...] = ()
    method: str | None = None
    model_set: str = "scenes"
    beside: tuple[str, ...] = ()
    backbones: int = 1
    max_backbones: int | None = None
    tenant: str = TENANT
    max_in_flight: int = 8
    hang_seconds: float = 600.0
    patience: float = 1800.0
    max_accelerator_seconds: float | None = None
    edit_accelerator_seconds: float | None = None
    inline: bool = False

    def reading(self) -> Reading:
        """How the manifest is read.

        Raises:
            InvalidRequestError: a form, a method or a choice that cannot be.
        """
        reading = Reading(
            self.form,
            self.parameters,
            self.from_case,
            self.end_case,
            self.variations,
            tuple(self.methods),
            self.method,
        )
        reading.check()
        return reading

    @property
    def limits(self) -> Limits:
        return Limits(
            in_flight=self.max_in_flight,
            hang_seconds=self.hang_seconds,
            patience=self.patience,
            accelerator_seconds=self.max_accelerator_seconds,
        )


@contextmanager
def open_batch(submission: Submission) -> Generator[Batch, None, None]:
    """The submission's manifest, model set and store; nothing is written.

    Raises:
        InvalidRequestError: the manifest or the model set is none.
        StoreError: the manifest's bucket cannot be read.
    """
    reading = submission.reading()
    models = open_model_set(submission.model_set)
    store = open_store(submission.output)
    with local_copy(submission.manifest) as copy:
        path = reading.file(copy)
        job = job_name(path, models.name, reading=reading.text())
        address = submission.manifest if is_remote(submission.manifest) else ""
        yield Batch(path, models, store, submission.tenant, job, reading, address)


def run_submission(
    submission: Submission,
    view: JobView | None = None,
    *,
    retry_failed: bool = False,
    report: bool = True,
    report_file: Path | None = None,
    job: str | None = None,
) -> Totals:
    """Do what is missing of a job; see `jobs.job.run_job`.

    Args:
        submission: what is asked.
        view: told what happens; a table for eyes by default.
        retry_failed: also try again what failed for good.
        report: whether to write the HTML report.
        report_file: where to write it too.
        job: name that the job must have; any if None.

    Raises:
        InvalidManifestError: the manifest is no longer that job's.
        FarmError: as its kind says.
    """
    with open_batch(submission) as batch, ended_by_signal():
        if job not in {None, batch.job}:
            raise InvalidManifestError(
                f"{batch.name} has changed since job {job} was submitted, and is job {batch.job} "
                "now: submit it with `editfarm edit-many`, which does only what is missing"
            )
        runner = choose_runner(
            batch.model_set,
            batch.store,
            batch.tenant,
            inline=submission.inline,
            beside=[open_model_set(name) for name in submission.beside],
            backbones=submission.backbones,
            max_backbones=submission.max_backbones,
        )
        options = JobOptions(
            limits=submission.limits,
            edit_accelerator_seconds=submission.edit_accelerator_seconds,
            retry_failed=retry_failed,
            report=report,
            report_file=report_file,
            submission=asdict(submission) | {"manifest": _from_anywhere(submission.manifest)},
        )
        return run_job(batch, runner, options, view)


def _from_anywhere(manifest: str) -> str:
    """The manifest's address, also for who stands in another folder."""
    return manifest if is_remote(manifest) else str(Path(manifest).absolute())


def submission_of(files: JobFiles, record: JobRecord) -> Submission:
    """A job's submission, into the store where it was found.

    Raises:
        CorruptArtifactError: the record is another version's.
    """
    names = {each.name for each in fields(Submission)}
    unknown = sorted(record.submission.keys() - names)
    if unknown or "manifest" not in record.submission:
        raise CorruptArtifactError(
            f"job {files.job} says of its submission {unknown or 'nothing'}: submit its manifest "
            "with `editfarm edit-many` instead"
        )
    known: dict[str, Any] = {**record.submission, "output": files.store.uri, "tenant": files.tenant}
    return Submission(**known)


@contextmanager
def ended_by_signal() -> Generator[None, None, None]:
    """Let a polite end (SIGTERM, as of `ray job stop`) be one like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
