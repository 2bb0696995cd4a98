"""How long it is worth waiting for callers of one key whose last calls were just answered."""

_MEMORY = 0.7
"""What the gaps before count when a new one is seen."""
_MISSES = 3
"""Waits in a row that brought too few, after which some batches go without one."""
_REST = 32
"""So many batches go without; the callers may have changed since."""


class Gathering:
    """Short waits for those who would come too late for the next batch by a moment.

    Trainers ask again a moment after each answer. If the next batch begins in that moment, it has
    only those who were not in the last one, and two halves of all trainers take turns for good,
    each paying a whole batch's fixed costs.
    """

    def __init__(self) -> None:
        self._answered: float | None = None
        self._missing = self._hoped = 0
        self._gap: float | None = None
        self._misses = self._rest = 0

    @property
    def missing(self) -> int:
        """Callers who were answered last and have not asked again."""
        return self._missing

    def answered(self, items: int, now: float) -> None:
        """So many callers have their answers; who of an earlier batch has not come back is late."""
        self._answered, self._missing = now, items
        self._rest = max(0, self._rest - 1)

    def arrived(self, now: float) -> None:
        """A call came in."""
        if self._answered is None or not self._missing:
            return
        self._missing -= 1
        gap = now - self._answered
        before = gap if self._gap is None else self._gap
        self._gap = _MEMORY * before + (1 - _MEMORY) * gap

    def patience(self, now: float, longest: float) -> float:
        """Seconds that are still worth waiting; 0: none.

        Args:
            now: seconds, of a monotonic clock.
            longest: seconds that a wait may take at most.
        """
        if self._answered is None or not self._missing or self._rest:
            return 0.0
        usual = longest if self._gap is None else 3 * self._gap + longest / 5
        return max(0.0, min(longest, usual) - (now - self._answered))

    def began(self) -> None:
        """A wait begins."""
        self._hoped = self._missing

    def ended(self) -> None:
        """A wait is over: by time, or because all came."""
        if 2 * self._missing <= self._hoped:
            self._misses = 0
            return
        self._misses += 1
        if self._misses >= _MISSES:
            self._misses, self._rest = 0, _REST
            self._gap = None  # those who were late made it long
