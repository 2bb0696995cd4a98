"""Several edits at once in one process without Ray: what a backbone actor's batcher would do.

Every edit runs in a thread of its own. Whoever calls waits until all edits that still run wait too;
then calls of one key are computed in one batch. That is the actor's batching with full batches; its
queues, priorities and messages are not here.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from farm.backbones.host import OperationHost
from farm.calls import Answer, Call
from farm.errors import FarmError

_T = TypeVar("_T")


@dataclass
class _Asking:
    """Calls of one thread that wait for their outcomes."""

    calls: Sequence[Call]
    outcomes: list[Answer | FarmError | None] = field(
        default_factory=list[Answer | FarmError | None]
    )

    def __post_init__(self) -> None:
        self.outcomes = [None] * len(self.calls)

    @property
    def is_answered(self) -> bool:
        return all(outcome is not None for outcome in self.outcomes)


class Lockstep:
    """An executor that several threads share.

    Args:
        host: computes.
        most: rows of a batch.
    """

    def __init__(self, host: OperationHost, most: int = 16) -> None:
        self.batches: dict[str, list[int]] = {}
        self._host, self._most = host, most
        self._ready = threading.Condition()
        self._running = 0
        self._waiting: list[_Asking] = []

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        asking = _Asking(calls)
        with self._ready:
            self._waiting.append(asking)
            while not asking.is_answered:
                if len(self._waiting) == self._running:
                    self._compute()
                    self._ready.notify_all()
                else:
                    self._ready.wait(timeout=1)
        answers: list[Answer] = []
        for outcome in asking.outcomes:
            if isinstance(outcome, FarmError):
                raise outcome
            assert outcome is not None
            answers.append(outcome)
        return answers

    def run_edits(self, edits: Sequence[Callable[["Lockstep"], _T]]) -> list[_T]:
        """All edits, together.

        Raises:
            Exception: as the first that failed.
        """
        self._running = len(edits)
        results: dict[int, _T] = {}
        errors: list[Exception] = []

        def go(number: int) -> None:
            try:
                results[number] = edits[number](self)
            except Exception as error:  # noqa: BLE001 - raised again below, in the caller's thread
                errors.append(error)
            finally:
                with self._ready:
                    self._running -= 1
                    self._ready.notify_all()

        threads = [threading.Thread(target=go, args=(n,)) for n in range(len(edits))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[number] for number in range(len(edits))]

    def _compute(self) -> None:
        """The longest row of waiting calls of one key; the others' turn comes after it.

        Whoever has all outcomes waits no more from then on, so that the next batch waits for it.
        """
        places = [
            (asking, number)
            for asking in self._waiting
            for number, outcome in enumerate(asking.outcomes)
            if outcome is None
        ]
        keys = [asking.calls[number].key for asking, number in places]
        key = max(keys, key=keys.count)
        chosen = [place for place, own in zip(places, keys, strict=True) if own == key]
        chosen = chosen[: self._most]
        calls = [asking.calls[number] for asking, number in chosen]
        self.batches.setdefault(calls[0].op, []).append(len(calls))
        try:
            outcomes = self._host.run_batch(calls)
        except FarmError as error:
            outcomes = [error] * len(calls)
        for (asking, number), outcome in zip(chosen, outcomes, strict=True):
            asking.outcomes[number] = outcome
        self._waiting = [asking for asking in self._waiting if not asking.is_answered]
