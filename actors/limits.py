"""The figures of a batcher; the table in `cluster/` sets those of a farm. No torch here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much a batcher takes in, and how it shares the compute thread out.

    Attributes:
        max_batch: largest number of items in a batch.
        max_queue: calls in the house beyond which further ones are refused.
        max_tenant_queue: the same for the calls of one tenant; None: no limit of its own.
        batch_share: of the time, that batch work gets while interactive work waits too.
        linger: seconds for which the thread waits at most for an interactive caller's next step.
        gather: share of a batch's time for which it may wait for callers who were just answered,
            even where they are not known to save more; 0: it never waits for anybody.
        fill: by how much of its time batch work may lengthen an interactive batch of its key.
        step_seconds: after which a step is given up as hung; None: never.
        pad: fill batches up to powers of two with copies, so that shapes are few.
    """

    max_batch: int = 16
    max_queue: int = 1024
    max_tenant_queue: int | None = None
    batch_share: float = 0.25
    linger: float = 0.005
    gather: float = 0.1
    fill: float = 0.25
    step_seconds: float | None = None
    pad: bool = False
