"""What the HTTP side needs of the rest, as protocols: a farm that edits, a dispatcher that starts.

Both have twins without Ray (`serve.inline`), so that everything above is tested without it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from farm.results import EditResult
from farm.runner import PreparedEdit
from serve.admission import Refusal
from serve.records import Priority

Charged: TypeAlias = Literal["job", "upload"]
"""What takes no place in the queue, and is counted as one edit of its tenant's rate."""


class EditFarm(Protocol):
    """Who runs edits."""

    def start(self) -> None:
        """Become ready, in the background; called once, in the event loop that is used after."""
        ...

    async def close(self) -> None:
        """Start nothing more."""
        ...

    async def run(
        self, name: str, prepared: PreparedEdit, *, tenant: str, priority: Priority
    ) -> EditResult:
        """Run an edit to its end.

        Raises:
            FarmError: what became of it otherwise.
        """
        ...

    async def stop(self, name: str) -> None:
        """Ask an edit to stop between two steps."""
        ...

    async def progress(self, looked_at: Collection[str] = ()) -> Mapping[str, Mapping[str, Any]]:
        """The latest step of each edit that runs, by name; empty when nobody knows.

        Args:
            looked_at: edits whose pictures are wanted, as `preview` of their steps.
        """
        ...

    async def ready(self) -> bool:
        """Whether a backbone with its networks answers now."""
        ...


@dataclass(frozen=True)
class Step:
    """How far an edit is.

    Attributes:
        stage: what it does.
        step: steps of it that are done.
        total: upper bound of its steps.
        loss: of this step, where there is one.
        eta_seconds: until the stage's end, as its steps so far went.
        preview: the picture as it stood a moment ago, a small JPEG; only of edits looked at.
    """

    stage: str
    step: int
    total: int
    loss: float | None = None
    eta_seconds: float | None = None
    preview: bytes | None = None


@dataclass(frozen=True)
class Snapshot:
    """What the dispatcher has in hand.

    Attributes:
        queued: how many edits wait.
        running: how far the others are, by tenant and id; None before their first step.
    """

    queued: int = 0
    running: Mapping[tuple[str, str], Step | None] = field(
        default_factory=dict[tuple[str, str], "Step | None"]
    )


class DispatcherDoor(Protocol):
    """The one dispatcher, seen from a replica of the HTTP side.

    Raises `BusyError` from all methods while there is none.
    """

    async def admit(self, tenant: str, name: str, pixels: int) -> Refusal | None:
        """Hold a place for an edit, or say why not."""
        ...

    async def charge(self, tenant: str, what: Charged, name: str) -> Refusal | None:
        """Count something else than an edit on the tenant's limits, or say why not.

        A job has a place then, until it is opened or released.
        """
        ...

    async def accept(self, tenant: str, name: str, priority: Priority, stored_bytes: int) -> None:
        """The edit's record is in the store now, and takes so many bytes."""
        ...

    async def release(self, tenant: str, name: str) -> None:
        """The edit's, or job's, record will never be in the store."""
        ...

    async def cancel(self, tenant: str, name: str) -> None:
        """The record says that the edit, or job, shall stop."""
        ...

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        """How many wait, and what runs.

        Args:
            looked_at: tenants and ids of edits whose pictures are wanted, now and for a while.
        """
        ...

    async def ready(self) -> bool:
        """Whether edits accepted now would be started now."""
        ...

    async def open_job(self, tenant: str, name: str) -> None:
        """The job's record is in the store now."""
        ...

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        """Records were deleted, which had taken so many bytes."""
        ...
