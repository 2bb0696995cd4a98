"""What becomes of an edit that fails: one table, so that nothing is ever tried without end.

| kind | is | then |
|---|---|---|
| request | wrong as it was asked | fails at once |
| poison | fails for a reason of its own | fails at once, alone |
| cancelled | somebody asked for it | fails at once |
| budget | has cost what it may | fails at once; its stages and checkpoints stay |
| transient | the machine, a backbone or the store let it down | again, ever later; then it fails |
| memory | too large for what else ran | again with half as many edits beside; then poison |
| hung | no progress for too long | stopped, once more; then poison |

While the machine itself is ill (store or backbones do not answer), a transient failure is nobody's:
it is not counted, nothing new is started, and a job waits (`Dispatcher`, jobs/dispatch.py).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from farm.errors import (
    BudgetExceededError,
    EditCancelledError,
    EditHungError,
    FarmError,
    InvalidRequestError,
    OutOfMemoryError,
)
from farm.storage.store import UnusableStoreError


class FailureKind(StrEnum):
    """Why an edit failed, as far as it matters for what to do next."""

    request = "request"
    poison = "poison"
    cancelled = "cancelled"
    budget = "budget"
    transient = "transient"
    memory = "memory"
    hung = "hung"


@dataclass(frozen=True)
class Rule:
    """What is done about one kind of failure.

    Attributes:
        retries: how often the edit is tried again after failures of this kind.
        first_pause: seconds before the first retry; doubled before each further one.
        longest_pause: seconds that a pause has at most.
        fewer_beside: whether fewer edits shall run at once from then on.
    """

    retries: int = 0
    first_pause: float = 0.0
    longest_pause: float = 60.0
    fewer_beside: bool = False

    def pause(self, retry: int, *, spread: float | None = None) -> float:
        """Seconds to wait before the given retry, 1 is the first.

        Args:
            retry: number of the retry.
            spread: in [0, 1]: where in the upper half of the pause; random by default, so that what
                failed together does not come back together.
        """
        drawn = random.random() if spread is None else spread  # noqa: S311 - no secret
        whole = min(self.first_pause * 2 ** (retry - 1), self.longest_pause)
        return whole * (0.5 + 0.5 * drawn)


POLICY: Mapping[FailureKind, Rule] = {
    FailureKind.request: Rule(),
    FailureKind.poison: Rule(),
    FailureKind.cancelled: Rule(),
    FailureKind.budget: Rule(),
    FailureKind.transient: Rule(retries=5, first_pause=1.0),
    FailureKind.memory: Rule(retries=2, first_pause=5.0, fewer_beside=True),
    FailureKind.hung: Rule(retries=1),
}


def classify(error: FarmError) -> FailureKind:
    """The kind of a failure of a running edit, by the error alone.

    A store that is unusable there is so for that process, and usable for others: a job proves its
    store before it starts anything. So the edit is tried elsewhere.
    """
    match error:
        case InvalidRequestError():
            return FailureKind.request
        case EditCancelledError():
            return FailureKind.cancelled
        case EditHungError():
            return FailureKind.hung
        case BudgetExceededError():
            return FailureKind.budget
        case OutOfMemoryError():
            return FailureKind.memory
        case FarmError(retryable=True) | UnusableStoreError():
            return FailureKind.transient
        case _:
            return FailureKind.poison


@dataclass
class Tries:
    """How often one edit has failed, by kind."""

    failed: dict[FailureKind, int]

    def next_pause(self, kind: FailureKind) -> float | None:
        """Count one more failure; seconds until the next try, or None when there is none."""
        self.failed[kind] = self.failed.get(kind, 0) + 1
        rule = POLICY[kind]
        if self.failed[kind] > rule.retries:
            return None
        return rule.pause(self.failed[kind])

    @property
    def total(self) -> int:
        return sum(self.failed.values())
