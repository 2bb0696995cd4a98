"""What became of each line of a job, and of the job as a whole: one JSON line each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from farm.errors import CorruptArtifactError, FarmError
from farm.requests import EditRequest, describe
from farm.results import EditResult


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    line: int
    """Line of the manifest, 1 is the first."""
    name: str
    request: EditRequest | None
    """None where the line is no request."""
    seconds: float
    """Wall time from its start to its end; 0 where nothing was started."""


class DoneEdit(_Record):
    """An edit that is committed."""

    status: Literal["done"] = "done"
    result: EditResult
    truth: str | None = None
    """Key of the true edited picture, where the manifest names one."""


class FailedEdit(_Record):
    """An edit that is not."""

    status: Literal["failed"] = "failed"
    kind: str
    """Name of the error's class in farm/errors.py."""
    message: str
    retryable: bool
    """Whether submitting the same manifest again may help."""


Outcome = Annotated[DoneEdit | FailedEdit, Field(discriminator="status")]
_ADAPTER: TypeAdapter[DoneEdit | FailedEdit] = TypeAdapter(Outcome)


def failed_edit(
    line: int, name: str, error: FarmError, *, request: EditRequest | None, seconds: float = 0.0
) -> FailedEdit:
    """The outcome that says why."""
    return FailedEdit(
        line=line,
        name=name,
        request=request,
        seconds=seconds,
        kind=type(error).__name__,
        message=error.message,
        retryable=error.retryable,
    )


def parse_outcome(line: bytes) -> DoneEdit | FailedEdit:
    """The outcome of one line of an outcomes.jsonl.

    Raises:
        CorruptArtifactError: it is none.
    """
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise CorruptArtifactError(
            f"a line of outcomes.jsonl is no outcome: {describe(error)}; submit the manifest again"
        ) from error


def network_passes(work: Mapping[str, int]) -> int:
    """Forward and backward passes of the large networks among units of work."""
    return sum(n for name, n in work.items() if name.startswith(("unet_", "transformer_")))


@dataclass
class Totals:
    """Sums over a job's outcomes, kept while they stream by."""

    started: int = 0
    """Lines that were requests: the others never reached the farm."""
    done: int = 0
    reused: int = 0
    """Edits that were in the store before."""
    inversions_reused: int = 0
    """New edits whose inversion was in the store, or was made for another edit meanwhile."""
    accelerator_seconds: float = 0.0
    """Of new edits."""
    failures: Counter[str] = field(default_factory=Counter[str])
    """Failed edits by kind of error."""
    work: Counter[str] = field(default_factory=Counter[str])
    """Units of frozen-network work of new edits."""
    trainer_pids: set[int] = field(default_factory=set[int])
    backbone_pids: set[int] = field(default_factory=set[int])

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 2 no line was a request."""
        if not self.started:
            return 2
        return 1 if self.failed else 0

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        self.started += outcome.request is not None
        if isinstance(outcome, FailedEdit):
            self.failures[outcome.kind] += 1
            return
        self.done += 1
        provenance = outcome.result.provenance
        self.trainer_pids.add(provenance.trainer_pid)
        self.backbone_pids.update(provenance.backbone_pids)
        if outcome.result.reused:
            self.reused += 1
            return
        self.inversions_reused += provenance.stage_reused
        self.accelerator_seconds += provenance.accelerator_seconds
        self.work.update(provenance.work)

    def as_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "failed": self.failed,
            "reused": self.reused,
            "inversions_reused": self.inversions_reused,
            "accelerator_seconds": round(self.accelerator_seconds, 3),
            "failures": dict(self.failures),
            "work": dict(self.work),
            "trainer_pids": sorted(self.trainer_pids),
            "backbone_pids": sorted(self.backbone_pids),
        }
