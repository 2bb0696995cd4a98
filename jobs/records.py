"""What a job leaves in the store; all under `tenants/<tenant>/jobs/<job>/`.

| file | |
|---|---|
| `job.json` | how it was submitted: enough to submit it again |
| `status.json` | how far it is, written every few seconds while it runs |
| `control.json` | what somebody wants of it: run, pause or cancel |
| `log/outcomes/<run>-<n>.jsonl` | outcomes as they came, of each run |
| `log/events/<run>-<n>.jsonl` | what happened, of each run |
| `outcomes.jsonl`, `outcomes.csv` | all outcomes, in the order of the manifest |
| `summary.json` | totals, command, versions, weights, processes |
| `report.html`, `report-<n>.html` | for eyes |
"""

import hashlib
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from farm.errors import CorruptArtifactError, InvalidManifestError, InvalidRequestError
from farm.requests import describe
from farm.storage.layout import job_file_key, jobs_prefix
from farm.storage.local import LocalStore
from farm.storage.patient import PatientStore
from farm.storage.store import MissingKeyError, Store, UnusableStoreError
from jobs.dispatch import Wish
from jobs.outcomes import DoneEdit, FailedEdit, parse_outcome

OUTCOMES, OUTCOME_TABLE = "outcomes.jsonl", "outcomes.csv"
SUMMARY, REPORT = "summary.json", "report.html"
JOB, STATUS, CONTROL = "job.json", "status.json", "control.json"
OUTCOME_LOG, EVENT_LOG = "log/outcomes/", "log/events/"
TENANT = "default"

State = Literal[
    "checking", "starting", "running", "paused", "waiting", "finished", "stopped", "interrupted"
]


class _Document(BaseModel):
    """Strict, and of one version: a newer one is refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1


_D = TypeVar("_D", bound=_Document)


class RunningEdit(BaseModel):
    """One that runs, and its latest step."""

    name: str
    stage: str = ""
    step: int = 0
    total: int = 0


class JobStatus(_Document):
    """status.json: how far a job is. `updated` grows every few seconds while it runs."""

    job: str
    run: str
    state: State
    reason: str = ""
    """Why it waits or has stopped."""
    total: int = 0
    """Edits, once all rows are checked."""
    done: int = 0
    reused: int = 0
    failed: int = 0
    left: int = 0
    running: list[RunningEdit] = []
    edits_per_minute: float | None = None
    eta_seconds: float | None = None
    busy_share: float | None = None
    """Of the time, for which a backbone computed."""
    mean_batch: float | None = None
    accelerator_seconds: float = 0.0
    host: str = ""
    pid: int = 0
    started: float
    """Unix time."""
    updated: float
    """Unix time."""

    @property
    def is_over(self) -> bool:
        return self.state in {"finished", "stopped", "interrupted"}


class JobControl(_Document):
    """control.json: the latest wish."""

    wish: Wish = Wish.run


class JobRecord(_Document):
    """job.json: how a job was submitted; the fields of `jobs.submission.Submission`."""

    submission: dict[str, Any]
    command: str
    submitted: str


class JobSummary(_Document):
    """summary.json: what a job was, and its figures."""

    job: str
    command: str
    manifest: str
    model_set: str
    weights: dict[str, str]
    versions: dict[str, str]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    totals: dict[str, Any]
    """See `jobs.outcomes.Totals`."""
    backbones: list[dict[str, Any]]
    """Process, device and networks of each backbone; empty when nothing had to be run."""


def job_name(manifest: Path, model_set: str, *, reading: str = "") -> str:
    """Name of a job: of the manifest's bytes and the model set, so that a second try is the same.

    Args:
        manifest: the file, or a folder, of which the texts count.
        model_set: its name or folder.
        reading: what else decides which edits the file asks for (`jobs.importers`); empty where
            all of a manifest counts.

    Raises:
        InvalidManifestError: the manifest cannot be read.
    """
    digest = hashlib.sha256(model_set.encode() + b"\0" + reading.encode())
    try:
        for part in sorted(manifest.rglob("*.txt")) if manifest.is_dir() else [manifest]:
            with part.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
    except OSError as error:
        raise InvalidManifestError(
            f"cannot read the manifest {manifest}: {error.strerror}; check its path"
        ) from error
    return digest.hexdigest()[:16]


class OutcomeSpool:
    """Outcomes as they come, given back in the order of their lines; on disk, not in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[tuple[int, int, int, int]] = []

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        data = outcome.model_dump_json().encode() + b"\n"
        offset = self._file.seek(0, 2)
        self._file.write(data)
        self._places.append((outcome.line, outcome.variant, offset, len(data)))

    def lines(self) -> Iterator[bytes]:
        """JSON lines in the order of the manifest."""
        for _, _, offset, size in sorted(self._places):
            self._file.seek(offset)
            yield self._file.read(size)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[DoneEdit | FailedEdit]:
        for line in self.lines():
            yield parse_outcome(line)


@contextmanager
def outcome_spool() -> Generator[OutcomeSpool, None, None]:
    """A spool in a temporary file."""
    with tempfile.TemporaryFile() as file:
        yield OutcomeSpool(file)


@dataclass(frozen=True)
class JobFiles:
    """The files of one job."""

    store: Store
    job: str
    tenant: str = TENANT

    def key(self, name: str) -> str:
        return job_file_key(self.tenant, self.job, name)

    def prefix(self, folder: str) -> str:
        """For listing one of the job's folders, which is named with its slash."""
        return f"{jobs_prefix(self.tenant)}{self.job}/{folder}"

    def put(self, name: str, data: bytes) -> None:
        self.store.put(self.key(name), data)

    def get(self, name: str) -> bytes:
        return self.store.get(self.key(name))

    def document(self, name: str, kind: type[_D]) -> _D:
        """One of the job's documents.

        Raises:
            MissingKeyError: it is not there.
            UnusableStoreError: a newer farm wrote it.
            CorruptArtifactError: it is none.
        """
        data = self.get(name)
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            where = f"{self.key(name)} in {self.store.uri}"
            if any(item["loc"] == ("schema_version",) for item in error.errors()):
                raise UnusableStoreError(
                    f"{where} has another schema_version than this farm knows (1): upgrade the farm"
                ) from error
            raise CorruptArtifactError(
                f"{where}: {describe(error)}; submit the manifest again"
            ) from error

    def write(self, name: str, document: _Document) -> None:
        """Put one of the job's documents.

        Raises:
            StoreError: the store failed.
        """
        self.put(name, document.model_dump_json(indent=1).encode())

    def summary(self) -> JobSummary:
        """The job's summary; see `document`."""
        return self.document(SUMMARY, JobSummary)

    def status(self) -> JobStatus | None:
        """How far the job is, or None for one that never said."""
        with suppress(MissingKeyError):
            return self.document(STATUS, JobStatus)
        return None

    def wish(self) -> Wish:
        """What somebody wants of the job."""
        with suppress(MissingKeyError):
            return self.document(CONTROL, JobControl).wish
        return Wish.run

    def place(self, name: str) -> str:
        """Where a person finds the file: a path, or the store's address and the key."""
        store = self.store.store if isinstance(self.store, PatientStore) else self.store
        if isinstance(store, LocalStore):
            return str(store.root / self.key(name))
        return f"{self.key(name)} in {self.store.uri}"


def find_job(store: Store, tenant: str, job: str | None) -> JobFiles:
    """The job of that name, or the only one.

    Raises:
        InvalidRequestError: there is none, or there are several and none was named.
    """
    prefix = jobs_prefix(tenant)
    names = set(store.names(prefix))
    if job is None and len(names) == 1:
        (job,) = names
    if job is not None and job not in names:
        beginning = [name for name in names if name.startswith(job)]
        job = beginning[0] if len(beginning) == 1 else job
    if job is None or job not in names:
        known = ", ".join(sorted(names)) or "none"
        asked = "no job was named" if job is None else f"there is no job {job!r}"
        raise InvalidRequestError(f"{asked}; jobs in {store.uri}: {known}; name one with --job")
    return JobFiles(store, job, tenant)
