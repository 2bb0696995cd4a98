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
    variant: int = 0
    """Number among the edits that were made of the line."""
    tries: int = 0
    """How often it was started; 0 where nothing was."""
    row: str = ""
    """Digest of all that the line's edit depends on, as cheap to find as possible; see
    `jobs.history`."""


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
    line: int,
    name: str,
    error: FarmError,
    *,
    request: EditRequest | None,
    seconds: float = 0.0,
    variant: int = 0,
    tries: int = 0,
    row: str = "",
) -> FailedEdit:
    """The outcome that says why."""
    return FailedEdit(
        variant=variant,
        tries=tries,
        row=row,
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
    return sum(
        n for name, n in work.items() if name.startswith(("unet_", "transformer_", "infinity_"))
    )


_STOPPED_CODES = {"cancelled": 130, "infrastructure": 3}


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
    tried_again: int = 0
    """Starts of edits beyond their first."""
    left: int = 0
    """Edits that were not begun, or not ended, when the job stopped."""
    stopped: str | None = None
    """Why it stopped before its end."""
    stage_seconds: Counter[str] = field(default_factory=Counter[str])
    """Wall time of new edits by stage."""
    failures: Counter[str] = field(default_factory=Counter[str])
    """Failed edits by kind of error."""
    work: Counter[str] = field(default_factory=Counter[str])
    """Units of frozen-network work of new edits."""
    trainer_pids: set[int] = field(default_factory=set[int])
    trainer_nodes: set[str] = field(default_factory=set[str])
    backbone_pids: set[int] = field(default_factory=set[int])

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed or left, 2 no line was a request, 3 and 130 see `stopped`."""
        if self.stopped is not None:
            return _STOPPED_CODES.get(self.stopped, 1)
        if not self.started:
            return 2
        return 1 if self.failed else 0

    def add(self, outcome: DoneEdit | FailedEdit) -> None:
        self.started += outcome.request is not None
        self.tried_again += max(0, outcome.tries - 1)
        if isinstance(outcome, FailedEdit):
            self.failures[outcome.kind] += 1
            return
        self.done += 1
        provenance = outcome.result.provenance
        if outcome.result.reused:
            self.reused += 1
            return
        self.trainer_pids.add(provenance.trainer_pid)
        self.trainer_nodes.add(provenance.trainer_node)
        self.backbone_pids.update(provenance.backbone_pids)
        self.stage_seconds.update(provenance.stage_seconds)
        self.inversions_reused += provenance.stage_reused
        self.accelerator_seconds += provenance.accelerator_seconds
        self.work.update(provenance.work)

    def as_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "failed": self.failed,
            "reused": self.reused,
            "inversions_reused": self.inversions_reused,
            "left": self.left,
            "stopped": self.stopped,
            "tried_again": self.tried_again,
            "accelerator_seconds": round(self.accelerator_seconds, 3),
            "stage_seconds": {name: round(s, 3) for name, s in self.stage_seconds.items()},
            "failures": dict(self.failures),
            "work": dict(self.work),
            "trainer_pids": sorted(self.trainer_pids),
            "trainer_nodes": sorted(filter(None, self.trainer_nodes)),
            "backbone_pids": sorted(self.backbone_pids),
        }
