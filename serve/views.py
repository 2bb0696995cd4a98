"""How records look to clients."""

import hashlib
import math
from typing import Any

from pydantic import BaseModel

from serve.doors import Step
from serve.records import EditRecord, JobRecord, State


class Progress(BaseModel):
    """How far a running edit is."""

    stage: str
    step: int
    total: int
    loss: float | None = None
    eta_seconds: float | None = None
    """Until the end of this stage."""
    preview: str | None = None
    """Where the picture as it stands can be had, while it is looked at; another one, another
    address."""


class FailureView(BaseModel):
    """Why there is no result."""

    code: str
    detail: str


class EditView(BaseModel):
    """An edit."""

    id: str
    object: str = "edit"
    state: State
    created: float
    started: float | None
    finished: float | None
    request: dict[str, Any]
    """What was asked; `image` is the SHA-256 of the picture."""
    priority: str
    edit_id: str
    """Digest of all that determines the result: equal edits have equal ones."""
    progress: Progress | None = None
    error: FailureView | None = None
    outputs: dict[str, str]
    """Where to get each output, by name."""
    reused: bool
    """Whether the result was in the store before."""
    cancel_requested: bool
    attempts: int
    user: str | None
    job: str | None


class EditPage(BaseModel):
    """Some edits, the newest first."""

    object: str = "list"
    data: list[EditView]
    next_cursor: str | None
    """What to ask for as `after` to go on; null at the end."""


class JobView(BaseModel):
    """A batch of edits."""

    id: str
    object: str = "job"
    state: str
    manifest: str
    created: float
    finished: float | None
    lines: int | None
    counts: dict[str, int]
    refusals: dict[int, str]
    waits_for: str | None
    error: FailureView | None


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    object: str = "list"
    data: list[JobView]
    next_cursor: str | None


def edit_view(record: EditRecord, step: Step | None = None) -> dict[str, Any]:
    """See `EditView`."""
    progress = None
    if step is not None and not record.is_final:
        progress = Progress(
            stage=step.stage,
            step=step.step,
            total=step.total,
            loss=step.loss if step.loss is not None and math.isfinite(step.loss) else None,
            eta_seconds=None if step.eta_seconds is None else round(step.eta_seconds, 1),
            preview=None if step.preview is None else preview_path(record.id, step.preview),
        )
    state: State = "running" if progress is not None else record.state
    return EditView(
        id=record.id,
        state=state,
        created=record.created,
        started=record.started,
        finished=record.finished,
        request=record.request,
        priority=record.priority,
        edit_id=record.edit_id,
        progress=progress,
        error=FailureView(**record.failure.model_dump()) if record.failure else None,
        outputs={name: f"/v1/edits/{record.id}/outputs/{name}" for name in record.outputs},
        reused=record.reused,
        cancel_requested=record.cancel_requested,
        attempts=record.attempts,
        user=record.user,
        job=record.job,
    ).model_dump()


def preview_path(name: str, picture: bytes) -> str:
    """The address of an edit's picture on its way; the digest tells one picture from the next."""
    return f"/v1/edits/{name}/preview?picture={hashlib.sha256(picture).hexdigest()[:12]}"


def job_view(job: JobRecord) -> dict[str, Any]:
    """See `JobView`."""
    return JobView(
        id=job.id,
        state=job.state,
        manifest=job.manifest,
        created=job.created,
        finished=job.finished,
        lines=job.lines,
        counts=job.counts,
        refusals=job.refusals,
        waits_for=None if job.is_final else job.waits_for,
        error=FailureView(**job.failure.model_dump()) if job.failure else None,
    ).model_dump()
