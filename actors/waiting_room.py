"""Who is let in, and who makes up the next batch."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from actors.caps import MemoryGauge
from actors.gathering import Gathering
from actors.lanes import Item, Key, Lane
from actors.limits import Limits
from actors.records import KeyRecord, Records
from actors.sender import Priority
from actors.turns import Guarantee
from farm.errors import QueueFullError


@dataclass(frozen=True)
class Chosen:
    """A batch that is to be computed next.

    Attributes:
        items: of one key; none has lost its caller.
        record: of their key.
        leader: the priority whose turn it is.
        both_waited: whether items of the other priority waited too.
        dropped: items that were taken out because nobody awaits them any more.
    """

    items: list[Item]
    record: KeyRecord
    leader: Priority
    both_waited: bool
    dropped: int


class WaitingRoom:
    """Bounded; two lanes, of which interactive goes first and batch keeps its share.

    Args:
        limits: of it.
        gauge: of the device's memory, where it can be measured.
    """

    def __init__(self, limits: Limits, gauge: MemoryGauge | None = None) -> None:
        self._limits = limits
        self._lanes: dict[Priority, Lane] = {"interactive": Lane(), "batch": Lane()}
        self._guarantee = Guarantee(limits.batch_share)
        self._tenants: Counter[str] = Counter()
        self.records = Records(limits.max_batch, gauge)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def refusal(self, item: Item) -> QueueFullError | None:
        """Why an item cannot be let in; None: it can."""
        waiting, tenant = len(self), item.sender.tenant
        if waiting >= self._limits.max_queue:
            return QueueFullError(
                f"{waiting} calls wait for this backbone, which is all it accepts: ask again "
                "later, run fewer edits at once, or add a replica"
            )
        most = self._limits.max_tenant_queue
        if most is not None and self._tenants[tenant] >= most:
            return QueueFullError(
                f"{self._tenants[tenant]} calls of tenant {tenant!r} wait for this backbone, which "
                "is all it accepts of one tenant: ask again later, or run fewer edits at once"
            )
        return None

    def arrived(self, item: Item, now: float) -> None:
        """Let an item in that is new."""
        record = self.records.known(item.key)
        if record is not None:
            record.gathering.arrived(now)
        self.add(item)

    def add(self, item: Item) -> None:
        """Let an item in, or in again for its next step."""
        self._lanes[item.sender.priority].add(item)
        self._tenants[item.sender.tenant] += 1

    def put_back(self, items: list[Item]) -> None:
        """Items that could not be computed together, before all others of their key."""
        for priority, lane in self._lanes.items():
            lane.put_back([item for item in items if item.sender.priority == priority])
        self._tenants.update(item.sender.tenant for item in items)

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take these out."""
        removed = [item for lane in self._lanes.values() for item in lane.remove(unwanted)]
        self._left(removed)
        return removed

    def next_batch(self) -> Chosen | None:
        """Take out the next batch; None: nobody waits."""
        dropped = 0
        while len(self):
            leader, both_waited = self._leader()
            items, record = self._take(leader)
            self._left(items)
            wanted = [item for item in items if not item.outcome.done()]
            dropped += len(items) - len(wanted)
            if wanted:
                return Chosen(wanted, record, leader, both_waited, dropped)
        return None

    def served(self, chosen: Chosen, seconds: float) -> None:
        """Note what a batch cost those who had it."""
        chosen.record.cost.seen(len(chosen.items), seconds)
        share = seconds / len(chosen.items)
        for priority, lane in self._lanes.items():
            mine = [item for item in chosen.items if item.sender.priority == priority]
            if mine:
                lane.charge(mine, mine[0].key, share)
        self._guarantee.served(chosen.leader, seconds, both_waited=chosen.both_waited)

    def kept_free(self, seconds: float) -> None:
        """Note that the thread was kept free for interactive work, while batch work waited."""
        self._guarantee.served("interactive", seconds, both_waited=True)

    def may_keep_free(self) -> bool:
        """Whether only batch work waits, and it is not its turn by guarantee."""
        if self._lanes["interactive"] or not self._lanes["batch"]:
            return False
        return not self._guarantee.batch_goes_first(self._batch_cost())

    def to_gather(self, now: float) -> tuple[Gathering, float] | None:
        """For whom the next batch should wait, and for how many seconds; None: for nobody.

        Only where nothing else could be computed meanwhile: batch work of one key alone waits, and
        the batch has room. A wait may cost what it can save, which is the fixed costs of a batch;
        while these are not known, a share of the whole.
        """
        waiting = self._lanes["batch"].keys()
        if not self._limits.gather or self._lanes["interactive"] or len(waiting) != 1:
            return None
        ((key, number),) = waiting.items()
        record = self.records.known(key)
        if record is None or number >= record.size:
            return None
        whole = min(number + record.gathering.missing, record.size)
        longest = max(self._limits.gather * (record.cost.of(whole) or 0.0), record.cost.fixed)
        patience = record.gathering.patience(now, longest)
        return (record.gathering, patience) if patience > 0 else None

    def by_priority(self) -> dict[str, int]:
        """How many wait."""
        return {priority: len(lane) for priority, lane in self._lanes.items()}

    def by_key(self) -> dict[Key, int]:
        """How many wait."""
        total: Counter[Key] = Counter()
        for lane in self._lanes.values():
            total.update(lane.keys())
        return dict(total)

    def by_tenant(self) -> dict[str, int]:
        """How many wait."""
        return dict(self._tenants)

    def _left(self, items: list[Item]) -> None:
        for item in items:
            self._tenants[item.sender.tenant] -= 1
            if not self._tenants[item.sender.tenant]:
                del self._tenants[item.sender.tenant]

    def _leader(self) -> tuple[Priority, bool]:
        """Whose turn it is, and whether both wait."""
        if not self._lanes["interactive"]:
            return "batch", False
        if not self._lanes["batch"]:
            return "interactive", False
        due = self._guarantee.batch_goes_first(self._batch_cost())
        return ("batch" if due else "interactive"), True

    def _batch_cost(self) -> float:
        """The dearest batch that batch work could have next, as far as costs are known."""
        costs = [0.0]
        for key, waiting in self._lanes["batch"].keys().items():
            record = self.records.known(key)
            if record is not None:
                costs.append(record.cost.of(min(waiting, record.cap.size)) or 0.0)
        return max(costs)

    def _take(self, leader: Priority) -> tuple[list[Item], KeyRecord]:
        """A batch of the leader's next key; what room it leaves goes to the other lane."""
        lane = self._lanes[leader]
        other = self._lanes["batch" if leader == "interactive" else "interactive"]
        key = lane.next_key()
        (first,) = lane.take(key, 1)
        record = self.records.of(first)
        size = record.size
        items = [first, *lane.take(key, size - 1)]
        room = size - len(items)
        if leader == "interactive":
            room = self._room_to_fill(record, len(items), min(room, other.waiting(key)))
        return [*items, *other.take(key, room)], record

    def _room_to_fill(self, record: KeyRecord, items: int, most: int) -> int:
        """How much batch work an interactive batch may take along without becoming slow."""
        own = record.cost.of(items)
        if own is None:
            return 0
        allowed = (1 + self._limits.fill) * own
        for more in range(most, 0, -1):
            if (record.cost.of(items + more) or 0.0) <= allowed:
                return more
        return 0
