"""What a batcher remembers of each key and each tenant."""

from collections import OrderedDict
from dataclasses import dataclass, field

from actors.caps import Cap, MemoryGauge
from actors.costs import Cost
from actors.gathering import Gathering
from actors.lanes import Item, Key
from actors.stats import KeyStats, TenantStats
from farm.calls import Call

_MOST_KEYS = 512
"""Shapes vary with pictures and prompts; a key not used for so many others is forgotten."""
_MOST_TENANTS = 4096


@dataclass
class KeyRecord:
    """One key: how large its batches may be, what they cost, who may come back, what they did."""

    op: str
    label: str
    cap: Cap
    alone: bool = False
    """Whether each item has a batch of its own."""
    cost: Cost = field(default_factory=Cost)
    gathering: Gathering = field(default_factory=Gathering)
    batches: int = 0
    items: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    @property
    def size(self) -> int:
        """Largest batch of this key."""
        return 1 if self.alone else self.cap.size


class Records:
    """Records by key, made when first asked for, and what tenants had.

    Args:
        max_batch: see `Limits`.
        gauge: of the device's memory, where it can be measured.
    """

    def __init__(self, max_batch: int, gauge: MemoryGauge | None) -> None:
        self._max_batch, self._gauge = max_batch, gauge
        self._keys: OrderedDict[Key, KeyRecord] = OrderedDict()
        self._tenants: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def of(self, item: Item) -> KeyRecord:
        """The record of this item's key."""
        record = self._keys.get(item.key)
        if record is None:
            cap = Cap(self._max_batch, self._gauge)
            record = KeyRecord(item.call.op, label_of(item.call), cap, _is_alone(item))
            self._keys[item.key] = record
            if len(self._keys) > _MOST_KEYS:
                self._keys.popitem(last=False)
        self._keys.move_to_end(item.key)
        return record

    def known(self, key: Key) -> KeyRecord | None:
        """The record of a key that has been seen."""
        return self._keys.get(key)

    def computed(self, items: list[Item], seconds: float, wait_seconds: float) -> None:
        """A batch was computed to its end or to its next step."""
        record = self.of(items[0])
        record.batches += 1
        record.items += len(items)
        record.seconds += seconds
        record.wait_seconds += wait_seconds
        for item in items:
            name = item.sender.tenant
            number, before = self._tenants.get(name, (0, 0.0))
            self._tenants[name] = (number + 1, before + seconds / len(items))
            self._tenants.move_to_end(name)
        while len(self._tenants) > _MOST_TENANTS:
            self._tenants.popitem(last=False)

    def key_stats(self, waiting: dict[Key, int]) -> dict[str, KeyStats]:
        """By label; steps of one operation together."""
        found: dict[str, KeyStats] = {}
        for key, record in list(self._keys.items()):
            one = found.get(record.label, KeyStats(record.op))
            found[record.label] = KeyStats(
                record.op,
                one.batches + record.batches,
                one.items + record.items,
                one.seconds + record.seconds,
                one.wait_seconds + record.wait_seconds,
                one.waiting + waiting.get(key, 0),
                max(one.cap, record.cap.size),
            )
        return found

    def tenant_stats(self, waiting: dict[str, int]) -> dict[str, TenantStats]:
        """By name."""
        had = dict(self._tenants)
        return {
            name: TenantStats(*had.get(name, (0, 0.0)), waiting.get(name, 0))
            for name in {**had, **waiting}
        }


def _is_alone(item: Item) -> bool:
    return bool(item.call.static.get("alone", False)) or item.sender.attempt > 0


def label_of(call: Call) -> str:
    """A call's key in words: what tells it from others of its operation."""
    static = [f"{name}={value}" for name, value in sorted(call.static.items())]
    shapes = [
        f"{name}:{'x'.join(map(str, array.shape)) or '1'}"
        for name, array in sorted(call.arrays.items())
    ]
    return " ".join([call.op, *static, *shapes])
