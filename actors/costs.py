"""What a batch of a key costs, learned from those that were computed."""

from collections.abc import Hashable

_MEMORY = 0.9
"""What an observation still counts after the next one."""


class Cost:
    """Seconds of a batch by its size: a line through what was seen, newer batches counting more."""

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def seen(self, items: int, seconds: float) -> None:
        """A batch of so many items took so long."""
        self._weight = self._weight * _MEMORY + 1
        self._n = self._n * _MEMORY + items
        self._nn = self._nn * _MEMORY + items * items
        self._t = self._t * _MEMORY + seconds
        self._nt = self._nt * _MEMORY + items * seconds

    def of(self, items: int) -> float | None:
        """Expected seconds of a batch; None before the first was seen."""
        if self._weight == 0:
            return None
        fixed, each = self._line()
        return fixed + each * items

    @property
    def fixed(self) -> float:
        """Seconds of any batch, which two that become one pay once; 0 while one size is known."""
        return 0.0 if self._weight == 0 else self._line()[0]

    def _line(self) -> tuple[float, float]:
        """Seconds of a batch, and of each of its items."""
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        variance = self._nn / self._weight - mean_n**2
        if variance < 1e-6 * mean_n**2:  # one size alone was seen: as if nothing were shared
            return 0.0, mean_t / mean_n
        slope = (self._nt / self._weight - mean_n * mean_t) / variance
        slope = min(max(slope, 0.0), mean_t / mean_n)  # between free and nothing shared
        return mean_t - slope * mean_n, slope


class Costs:
    """The costs of all keys."""

    def __init__(self) -> None:
        self._costs: dict[Hashable, Cost] = {}

    def seen(self, key: Hashable, items: int, seconds: float) -> None:
        """See `Cost.seen`."""
        self._costs.setdefault(key, Cost()).seen(items, seconds)

    def of(self, key: Hashable, items: int) -> float | None:
        """See `Cost.of`; None for a key that was never seen."""
        cost = self._costs.get(key)
        return None if cost is None else cost.of(items)
