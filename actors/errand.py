"""What is left of a list of calls to be answered. No Ray and no waiting here."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from actors.lanes import Outcome
from actors.sender import Sender
from farm.calls import Answer, Call
from farm.errors import BackboneLostError, EditFailedError, QueueFullError

_FIRST_PAUSE = 0.05  # seconds after a refusal; doubled each time
_LONGEST_PAUSE = 2.0
_MOST_ATTEMPTS = 3
"""Steps that may hang or break while they hold a call, before the call is held to be the cause."""


class Errand:
    """Collects the answers to calls that are asked again until each has one.

    Args:
        calls: what to ask.
        sender: who asks.
    """

    def __init__(self, calls: Sequence[Call], sender: Sender) -> None:
        self._calls = calls
        self._sender = sender
        self._answers: dict[int, Answer] = {}
        self._attempts = [0] * len(calls)
        self._pause = _FIRST_PAUSE

    def chunks(self, size: int) -> Iterator[tuple[list[int], list[Call], Sender]]:
        """What is to be asked now: numbers of calls, these calls, and who asks them."""
        open_calls = [i for i in range(len(self._calls)) if i not in self._answers]
        for attempt in sorted({self._attempts[i] for i in open_calls}):
            numbers = [i for i in open_calls if self._attempts[i] == attempt]
            sender = replace(self._sender, attempt=attempt) if attempt else self._sender
            for start in range(0, len(numbers), size):
                chunk = numbers[start : start + size]
                yield chunk, [self._calls[i] for i in chunk], sender

    def take(
        self, outcomes: Sequence[tuple[Sequence[int], Sequence[Outcome]]]
    ) -> tuple[float, QueueFullError | None]:
        """Sort a round of outcomes; seconds to wait before the next round, and the refusal if any.

        Raises:
            FarmError: of a call that failed.
        """
        refusal: QueueFullError | None = None
        for numbers, chunk in outcomes:
            for number, outcome in zip(numbers, chunk, strict=True):
                match outcome:
                    case Answer():
                        self._answers[number] = outcome
                    case QueueFullError():
                        refusal = outcome
                    case BackboneLostError():
                        self._hung(number, outcome)
                    case _:
                        raise outcome
        if refusal is None:
            return 0.0, None
        pause = self._pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        return pause, refusal

    def answers(self) -> list[Answer] | None:
        """All answers in the order of the calls; None: some are missing."""
        if len(self._answers) < len(self._calls):
            return None
        return [self._answers[i] for i in range(len(self._calls))]

    def _hung(self, number: int, error: BackboneLostError) -> None:
        self._attempts[number] += 1
        if self._attempts[number] >= _MOST_ATTEMPTS:
            raise EditFailedError(
                f"{_MOST_ATTEMPTS} steps in a row hung or broke their backbone with this call in "
                f"them, the last ones with it alone: {error.message}; look at its inputs"
            ) from error
