"""What a job leaves in the store: outcomes.jsonl, summary.json, report.html."""

import hashlib
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from farm.errors import CorruptArtifactError, InvalidManifestError, InvalidRequestError
from farm.requests import describe
from farm.storage.layout import job_file_key, jobs_prefix
from farm.storage.local import LocalStore
from farm.storage.store import Store
from jobs.outcomes import DoneEdit, FailedEdit, parse_outcome

OUTCOMES, SUMMARY, REPORT = "outcomes.jsonl", "summary.json", "report.html"
TENANT = "default"


class JobSummary(BaseModel):
    """summary.json: what a job was, and its figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
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
        manifest: the file.
        model_set: its name or folder.
        reading: what else decides which edits the file asks for (`jobs.importers`); empty where
            all of a manifest counts.

    Raises:
        InvalidManifestError: the manifest cannot be read.
    """
    digest = hashlib.sha256(model_set.encode() + b"\0" + reading.encode())
    try:
        with manifest.open("rb") as file:
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
        self._places: list[tuple[int, int, int]] = []

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        data = outcome.model_dump_json().encode() + b"\n"
        offset = self._file.seek(0, 2)
        self._file.write(data)
        self._places.append((outcome.line, offset, len(data)))

    def lines(self) -> Iterator[bytes]:
        """JSON lines in the order of the manifest."""
        for _, offset, size in sorted(self._places):
            self._file.seek(offset)
            yield self._file.read(size)

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

    def put(self, name: str, data: bytes) -> None:
        self.store.put(self.key(name), data)

    def get(self, name: str) -> bytes:
        return self.store.get(self.key(name))

    def summary(self) -> JobSummary:
        """The job's summary.

        Raises:
            CorruptArtifactError: it is none.
        """
        try:
            return JobSummary.model_validate_json(self.get(SUMMARY))
        except ValidationError as error:
            raise CorruptArtifactError(
                f"{self.key(SUMMARY)} in {self.store.uri}: {describe(error)}; submit the manifest "
                "again"
            ) from error

    def place(self, name: str) -> str:
        """Where a person finds the file: a path, or the store's address and the key."""
        if isinstance(self.store, LocalStore):
            return str(self.store.root / self.key(name))
        return f"{self.key(name)} in {self.store.uri}"


def find_job(store: Store, tenant: str, job: str | None) -> JobFiles:
    """The job of that name, or the only one.

    Raises:
        InvalidRequestError: there is none, or there are several and none was named.
    """
    prefix = jobs_prefix(tenant)
    names = {key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)}
    if job is None and len(names) == 1:
        (job,) = names
    if job is None or job not in names:
        known = ", ".join(sorted(names)) or "none"
        asked = "no job was named" if job is None else f"there is no job {job!r}"
        raise InvalidRequestError(f"{asked}; jobs in {store.uri}: {known}; name one with --job")
    return JobFiles(store, job, tenant)
