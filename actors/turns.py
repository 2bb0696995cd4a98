"""Whose turn it is: deficit round robin by measured cost, and a share that is guaranteed."""

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

from actors.sender import Priority

Name = TypeVar("Name", bound=Hashable)


class Turns(Generic[Name]):
    """Deficit round robin whose costs are known only after the service.

    Every name has a credit. A service is charged when its cost is known, so a credit may fall below
    zero; a name is served again once it is out of its debt. When none of those who wait is, all of
    them are granted as much as the first needs: that is a round. Of several who may be served, the
    one that has waited for its turn longest is.

    Two names that wait all the time are served costs that differ by at most the largest single
    cost. A name that has just come has no debt and no savings: it is served within one round, and
    cannot have saved up while it asked for nothing. A debt outlives a pause of its name, else
    whoever asks for one thing at a time would be treated better than whoever queues.
    """

    def __init__(self) -> None:
        self._credits: OrderedDict[Name, float] = OrderedDict()  # next in turn first

    def turn(self, waiting: Collection[Name]) -> Name:
        """Which of these is to be served; at least one waits."""
        for name in waiting:
            self._credits.setdefault(name, 0.0)
        most = max(self._credits[name] for name in waiting)
        if most < 0:
            self._grant(-most, waiting)
        chosen = next(n for n, credit in self._credits.items() if n in waiting and credit >= 0)
        self._credits.move_to_end(chosen)
        return chosen

    def ranked(self, waiting: Collection[Name]) -> list[Name]:
        """These, the least served first."""
        return sorted(waiting, key=lambda name: -self._credits.get(name, 0.0))

    def charge(self, name: Name, cost: float) -> None:
        """Note what a service cost, in any unit that all share."""
        self._credits[name] = self._credits.get(name, 0.0) - cost

    def _grant(self, amount: float, waiting: Collection[Name]) -> None:
        for name in list(self._credits):
            self._credits[name] += amount
            if name not in waiting and self._credits[name] >= 0:
                del self._credits[name]  # nothing is owed: as if it had never been here


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
