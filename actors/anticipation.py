"""How long it is worth waiting for whoever was just answered to ask again."""

_MEMORY = 0.7
"""What the gaps before count when a new one is seen."""
_MISSES = 3
"""Waits in vain after which no more are tried, until somebody is seen to ask soon again."""


class Anticipation:
    """Short waits for the next step of an interactive caller.

    Whoever samples step by step from afar asks again a moment after each answer. A batch of others
    begun in that moment would cost it the whole batch's time, at every step; so the thread stays
    free for a moment, as disk schedulers do for a reader.

    Args:
        longest: seconds; 0: never wait.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._gap = longest / 2
        self._answered: float | None = None
        self._misses = 0

    def answered(self, now: float) -> None:
        """An interactive caller has its answer."""
        self._answered = now

    def arrived(self, now: float) -> None:
        """An interactive call came in."""
        if self._answered is None:
            return
        gap, self._answered = now - self._answered, None
        if gap <= self._longest:
            self._gap = _MEMORY * self._gap + (1 - _MEMORY) * gap
            self._misses = 0

    def missed(self) -> None:
        """A wait was in vain."""
        self._misses += 1
        self._answered = None

    def patience(self, now: float) -> float:
        """Seconds that are still worth waiting; 0: none."""
        if self._answered is None or self._misses >= _MISSES:
            return 0.0
        usual = 3 * self._gap + self._longest / 5
        return max(0.0, min(self._longest, usual) - (now - self._answered))
