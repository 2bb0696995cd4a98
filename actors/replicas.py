"""Which backbones a caller may ask, and which of them it asks. No torch here."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_STICKINESS = 8
"""Items by which home may be more loaded than another before it is left: it remembers things."""


@dataclass
class Replica:
    """One backbone, as a caller sees it.

    Attributes:
        handle: of the actor.
        depth: items that were there when it was last heard of.
        outstanding: this caller's items that have no answer yet.
    """

    handle: Any
    depth: int = 0
    outstanding: int = 0

    @property
    def load(self) -> int:
        """Items before a new one, as far as is known here."""
        return self.depth + self.outstanding


class Replicas(Protocol):
    """Where the backbones of a model set are."""

    def current(self) -> Sequence[Replica]:
        """Those that are ready, at least one; always in the same order. May wait for the first.

        Raises:
            FarmError: there will be none.
        """
        ...

    def lost(self, replica: Replica) -> bool:
        """Note that one is gone for good; whether another may do instead."""
        ...


class FixedReplicas:
    """Backbones that are there as long as whoever asks.

    Args:
        handles: at least one.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        if not handles:
            raise ValueError("no backbone given, expected at least one handle")
        self._replicas = [Replica(handle) for handle in handles]

    def current(self) -> Sequence[Replica]:
        """All."""
        return self._replicas

    def lost(self, replica: Replica) -> bool:
        """One that is gone for good is not replaced."""
        del replica
        return False


class Choice:
    """Chooses between home and one other at random, the less loaded ("power of two choices").

    Not the least loaded of all: what callers know is a moment old, and if all of them went to the
    same one it would be the most loaded next. Callers with different homes spread over the
    replicas, and each finds again what a replica remembers for it.

    Args:
        home: number of the preferred replica; any integer.
    """

    def __init__(self, home: int) -> None:
        self._home = home
        self._random = random.Random(home)  # noqa: S311 - no secret: where to ask

    def of(self, replicas: Sequence[Replica]) -> Replica:
        """Where the next items go."""
        number = self._home % len(replicas)
        home = replicas[number]
        if len(replicas) == 1:
            return home
        step = 1 + self._random.randrange(len(replicas) - 1)
        other = replicas[(number + step) % len(replicas)]
        return other if home.load > other.load + _STICKINESS else home
