"""The far executor: calls go to backbone actors, which put them in batches with everyone else's."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from actors.batcher import Outcome
from actors.calls import Ref, results_of
from farm.calls import Answer, Call
from farm.errors import QueueFullError

_FIRST_PAUSE = 0.05  # seconds after a refusal; doubled each time
_LONGEST_PAUSE = 2.0


@dataclass
class _Replica:
    handle: Any
    outstanding: int = 0


class RemoteExecutor:
    """Answers calls by backbone actors; implements `farm.calls.Executor`.

    Chunks go to the replica with the fewest of this executor's calls outstanding. `home` breaks
    ties: callers spread over the replicas, yet each finds again what a replica remembers for it.
    A full queue is asked again, ever more slowly, until the timeout.

    Args:
        backbones: handles of `BackboneActor`, at least one.
        home: number of the preferred replica; any integer.
        chunk: largest number of calls in one message.
        timeout: seconds after which an answer is no longer awaited; for ever if None.
        pause: how to wait between two attempts.
    """

    def __init__(
        self,
        backbones: Sequence[Any],
        *,
        home: int = 0,
        chunk: int = 16,
        timeout: float | None = 600.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not backbones:
            raise ValueError("no backbone given, expected at least one handle")
        start = home % len(backbones)
        self._replicas = [_Replica(h) for h in (*backbones[start:], *backbones[:start])]
        self._chunk = chunk
        self._timeout = timeout
        self._pause = pause

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers in the order of the calls; all are sent before any answer is awaited.

        Raises:
            FarmError: of the first call that failed; BackboneLostError when an actor died and did
                not come back; UnavailableError when no answer came in time.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        answers: dict[int, Answer] = {}
        pause = _FIRST_PAUSE
        while True:
            open_calls = [i for i in range(len(calls)) if i not in answers]
            outcomes = self._ask([calls[i] for i in open_calls], deadline)
            refusal: QueueFullError | None = None
            for index, outcome in zip(open_calls, outcomes, strict=True):
                if isinstance(outcome, Answer):
                    answers[index] = outcome
                elif isinstance(outcome, QueueFullError):
                    refusal = outcome
                else:
                    raise outcome
            if refusal is None:
                return [answers[i] for i in range(len(calls))]
            if deadline is not None and time.monotonic() + pause > deadline:
                raise refusal
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _ask(self, calls: Sequence[Call], deadline: float | None) -> list[Outcome]:
        """One round: send everything, then collect."""
        sent: list[tuple[_Replica, int, Ref[list[Outcome]]]] = []
        for start in range(0, len(calls), self._chunk):
            chunk = list(calls[start : start + self._chunk])
            replica = min(self._replicas, key=lambda r: r.outstanding)
            replica.outstanding += len(chunk)
            sent.append((replica, len(chunk), replica.handle.answer.remote(chunk)))
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            answered = results_of([ref for _, _, ref in sent], left)
        finally:
            for replica, amount, _ in sent:
                replica.outstanding -= amount
        return [outcome for outcomes in answered for outcome in outcomes]
