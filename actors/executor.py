"""The far executor: calls go to backbone actors, which put them in batches with everyone else's."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from actors.bundles import Bundles
from actors.calls import Ref, awaited, in_time, is_loss, result_of
from actors.errand import Errand
from actors.lanes import Outcome
from actors.replicas import Choice, FixedReplicas, Replica, Replicas
from actors.sender import ANYBODY, Sender
from farm.calls import Answer, Call
from farm.errors import FarmError, QueueFullError


@dataclass
class _Sent:
    numbers: list[int]
    replica: Replica
    ref: Ref[list[Outcome]]


class RemoteExecutor:
    """Answers calls by backbone actors; implements `farm.calls.Executor`.

    Chunks go to the less loaded of two replicas, see `Choice`. A full queue is asked again, ever
    more slowly, until the timeout. A replica that died comes back, or another takes its place, and
    is asked again: nobody notices but for the time it takes.

    Args:
        backbones: handles of `BackboneActor`, at least one, or where to find them.
        sender: for whom.
        home: number of the preferred replica; any integer.
        chunk: largest number of calls in one message.
        timeout: seconds after which an answer is no longer awaited; for ever if None.
        pause: how to wait between two attempts.
    """

    def __init__(
        self,
        backbones: Sequence[Any] | Replicas,
        *,
        sender: Sender = ANYBODY,
        home: int = 0,
        chunk: int = 16,
        timeout: float | None = 600.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        fixed = isinstance(backbones, Sequence)
        self._replicas: Replicas = FixedReplicas(backbones) if fixed else backbones
        self._choice = Choice(home)
        self._sender = sender
        self._chunk = chunk
        self._timeout = timeout
        self._pause = pause
        self._bundles = Bundles(self._asked, chunk)

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """Answers in the order of the calls; all are sent before any answer is awaited.

        Raises:
            FarmError: of the first call that failed; BackboneLostError when an actor died and did
                not come back; UnavailableError when no answer came in time.
        """
        errand, deadline = Errand(calls, self._sender), self._deadline()
        while (answers := errand.answers()) is None:
            sent = self._send(errand)
            outcomes = self._collected(sent, deadline)
            self._wait(*errand.take(outcomes), deadline)
        return answers

    async def answers(self, calls: Sequence[Call]) -> list[Answer]:
        """`run_all` for coroutines: many edits in one process, each waiting for its own answers.

        What coroutines ask of one executor in one turn of their event loop goes in one message, as
        far as it is of one key.

        Raises:
            FarmError: as `run_all`.
        """
        errand, deadline = Errand(calls, self._sender), self._deadline()
        while (answers := errand.answers()) is None:
            chunks = list(errand.chunks(self._chunk))
            left = _left(deadline)
            outcomes = await asyncio.gather(
                *[in_time(self._bundles.outcomes(calls, who), left) for _, calls, who in chunks]
            )
            outcomes = [(chunk[0], found) for chunk, found in zip(chunks, outcomes, strict=True)]
            pause, refusal = errand.take(outcomes)
            if refusal is not None:
                _check(refusal, pause, deadline)
                await asyncio.sleep(pause)
        return answers

    def _deadline(self) -> float | None:
        return None if self._timeout is None else time.monotonic() + self._timeout

    def _send(self, errand: Errand) -> list[_Sent]:
        return [
            self._message(numbers, calls, sender)
            for numbers, calls, sender in errand.chunks(self._chunk)
        ]

    def _message(self, numbers: list[int], calls: Sequence[Call], sender: Sender) -> _Sent:
        replica = self._choice.of(self._replicas.current())
        replica.outstanding += len(calls)
        return _Sent(numbers, replica, replica.handle.answer.remote(calls, sender))

    def _collected(
        self, sent: Sequence[_Sent], deadline: float | None
    ) -> list[tuple[list[int], list[Outcome]]]:
        collected: list[tuple[list[int], list[Outcome]]] = []
        try:
            for one in sent:
                try:
                    outcomes = result_of(one.ref, _left(deadline))
                except FarmError as error:
                    outcomes = self._without(one, error)
                collected.append((one.numbers, outcomes))
        finally:
            for one in sent:
                one.replica.outstanding -= len(one.numbers)
            for one in sent[len(collected) :]:  # one failed: nobody awaits the others
                ray.cancel(one.ref)
        return collected

    async def _asked(self, calls: Sequence[Call], sender: Sender) -> list[Outcome]:
        one = self._message(list(range(len(calls))), calls, sender)
        try:
            return await awaited(one.ref)
        except FarmError as error:
            return self._without(one, error)
        except asyncio.CancelledError:
            ray.cancel(one.ref)
            raise
        finally:
            one.replica.outstanding -= len(one.numbers)

    def _without(self, one: _Sent, error: FarmError) -> list[Outcome]:
        """What to do about a replica that is gone for good: ask another, or fail."""
        if not (is_loss(error) and self._replicas.lost(one.replica)):
            raise error
        # not the calls' fault, so no attempt of theirs; they are asked again at once
        return [QueueFullError(error.message) for _ in one.numbers]

    def _wait(self, pause: float, refusal: QueueFullError | None, deadline: float | None) -> None:
        if refusal is not None:
            _check(refusal, pause, deadline)
            self._pause(pause)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _check(refusal: QueueFullError, pause: float, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() + pause > deadline:
        raise refusal
