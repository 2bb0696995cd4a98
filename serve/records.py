"""The durable record of an edit that came by HTTP, and of a batch of them."""

import hashlib
import re
import secrets
import time
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

State: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
FINAL: frozenset[State] = frozenset({"done", "failed", "cancelled"})
Priority: TypeAlias = Literal["interactive", "batch"]

_ID = re.compile(r"[ej][0-9a-f]{27}")
_LATEST = 2**44 - 1  # milliseconds; counted down, so that the newest is the first listed


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Failure(_Strict):
    """Why an edit has no result, in words that anybody may read."""

    code: str
    detail: str


class Webhook(_Strict):
    """Where to tell of the end, and how that goes."""

    url: str
    attempts: int = 0
    state: Literal["waiting", "delivered", "given_up"] = "waiting"


class EditRecord(_Strict):
    """Everything that is known of an accepted edit; its image lies beside it until it is done."""

    schema_version: Literal[1] = 1
    id: str
    tenant: str
    request: dict[str, Any]
    """Fields of the `EditRequest`; its `image` is the digest of the bytes."""
    priority: Priority
    edit_id: str
    """What determines the result, as everywhere in the farm: equal edits share it."""
    image_digest: str
    created: float
    """Seconds since 1970, as all times here."""
    state: State = "queued"
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    cancel_requested: bool = False
    failure: Failure | None = None
    outputs: dict[str, int] = {}
    """Sizes in bytes by name."""
    reused: bool = False
    bytes_in: int = 0
    user: str | None = None
    """The client's own word for whoever asked."""
    job: str | None = None
    webhook: Webhook | None = None
    trace: str = ""
    """Context of the span that accepted it; empty unless somebody traces."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def stored_bytes(self) -> int:
        """What it counts against the tenant's storage."""
        return self.bytes_in + sum(self.outputs.values())


class JobRecord(_Strict):
    """A manifest whose lines are edits."""

    schema_version: Literal[1] = 1
    id: str
    tenant: str
    manifest: str
    max_in_flight: int
    created: float
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    lines: int | None = None
    """Of the manifest, once it has been read to its end."""
    counts: dict[str, int] = {}
    """Edits by state; `refused` are lines that are no edit."""
    refusals: dict[int, str] = {}
    """What is wrong with the first of the lines that are no edit."""
    waits_for: str | None = None
    """Which limit of the tenant's keeps its next line from being accepted."""
    failure: Failure | None = None
    finished: float | None = None

    @property
    def is_final(self) -> bool:
        return self.state != "running"


def new_id(kind: Literal["e", "j"], now: float | None = None) -> str:
    """An id that sorts before all older ones and cannot be guessed."""
    return _counted_down(kind, time.time() if now is None else now) + secrets.token_hex(8)


def line_id(job: JobRecord, line: int) -> str:
    """The id of a line's edit: the same whenever the manifest is read again."""
    digest = hashlib.sha256(f"{job.id}:{line}".encode()).hexdigest()
    return _counted_down("e", job.created) + digest[:16]


def is_id(text: str) -> bool:
    """Whether this may be the id of a record."""
    return _ID.fullmatch(text) is not None


def _counted_down(kind: str, seconds: float) -> str:
    return f"{kind}{_LATEST - int(seconds * 1000):011x}"
