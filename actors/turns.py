"""Whose turn it is: deficit round robin by measured cost, and a share that is guaranteed."""

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

from actors.sender import Priority

Name = TypeVar("Name", bound=Hashable)


_SAME = 1e-9
"""Credits that differ by less are equal but for rounding."""


class Turns(Generic[Name]):
    """Deficit round robin whose costs are known only after the service.

    Every name has a credit. What a service cost is taken from its name and granted, in equal parts,
    to all that waited for it; the highest credit is served next, and of equal ones the one that has
    not been served for longest. So a credit is what a name is owed by the others, and a deficit is
    carried from round to round, as in deficit round robin with rounds as short as can be.

    Two names that wait all the time are served costs that differ by at most the largest single
    cost. A name that has just come has no debt and no savings. A debt outlives a pause of its name,
    else whoever asks for one thing at a time would be treated better than whoever queues; savings
    do not. However many newcomers there are, whoever waits is granted more with every service of
    another, and so comes to its turn.
    """

    def __init__(self) -> None:
        self._credits: OrderedDict[Name, float] = OrderedDict()  # least lately served first
        self._contenders: tuple[Name, ...] = ()

    def turn(self, waiting: Collection[Name]) -> Name:
        """Which of these is to be served; at least one waits."""
        for name in waiting:
            self._credits.setdefault(name, 0.0)
        self._contenders = tuple(waiting)
        most = max(self._credits[name] for name in waiting)
        present = frozenset(waiting)
        chosen = next(
            name
            for name, credit in self._credits.items()
            if name in present and credit >= most - _SAME * max(1.0, abs(most))
        )
        self._credits.move_to_end(chosen)
        return chosen

    def ranked(self, waiting: Collection[Name]) -> list[Name]:
        """These, the least served first."""
        return sorted(waiting, key=lambda name: -self._credits.get(name, 0.0))

    def charge(self, name: Name, cost: float) -> None:
        """Note what a service cost, in any unit that all share; after its `turn`."""
        self._credits[name] = self._credits.get(name, 0.0) - cost
        present = frozenset(self._contenders)
        grant = cost / max(1, len(present))
        for other in list(self._credits):
            self._credits[other] += grant
            if other not in present and self._credits[other] >= 0:
                del self._credits[other]  # nothing is owed: as if it had never been here


class Guarantee:
    """Interactive work goes before batch work, which is owed a share of the time both wait for.

    While both wait, `share` of every interactive second is put to the account of batch work, which
    goes first as soon as the account holds its next batch's interactive part of the cost. So with
    both waiting all the time batch work gets `share` of it, no more and no less but for one batch;
    and a short interactive burst is not interrupted at all.

    Args:
        share: of the time, from 0 (none: it may starve) to 1.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the share of batch work is {share}, expected 0 to 1")
        self._share = share
        self._owed = 0.0

    def batch_goes_first(self, cost: float) -> bool:
        """Whether batch work is due, both waiting; `cost`: of its next batch, as far as known."""
        return self._owed > 0 and self._owed >= (1 - self._share) * cost

    def served(self, priority: Priority, seconds: float, *, both_waited: bool) -> None:
        """Note who had the compute thread, and for how long."""
        if priority == "interactive":
            earned = self._share * seconds
            self._owed = self._owed + earned if both_waited else min(0.0, self._owed + earned)
        elif both_waited:
            self._owed -= (1 - self._share) * seconds
        else:
            self._owed = max(0.0, self._owed - seconds) if self._owed > 0 else self._owed
