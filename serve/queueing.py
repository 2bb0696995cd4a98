"""Which waiting edit starts next: interactive before batch, tenants in turn, nobody starved."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from serve.records import Priority

_INTERACTIVE_IN_A_ROW = 4
"""Interactive edits started before a waiting batch edit gets its turn."""


@dataclass(frozen=True)
class Waiting:
    """An edit that may start."""

    tenant: str
    id: str
    priority: Priority


class FairQueue:
    """Edits that wait. Within a tenant and a priority, the first come is the first served."""

    def __init__(self) -> None:
        self._lanes: dict[Priority, OrderedDict[str, OrderedDict[str, None]]] = {
            "interactive": OrderedDict(),
            "batch": OrderedDict(),
        }
        self._row = 0

    def __len__(self) -> int:
        return sum(len(ids) for lane in self._lanes.values() for ids in lane.values())

    def count(self, tenant: str) -> int:
        """Of one tenant."""
        return sum(len(lane.get(tenant, ())) for lane in self._lanes.values())

    def ids(self) -> set[tuple[str, str]]:
        """Tenants and ids of all."""
        return {
            (tenant, name)
            for lane in self._lanes.values()
            for tenant, ids in lane.items()
            for name in ids
        }

    def push(self, waiting: Waiting) -> None:
        """Put an edit at its tenant's end; nothing happens where it waits already."""
        self._lanes[waiting.priority].setdefault(waiting.tenant, OrderedDict())[waiting.id] = None

    def remove(self, tenant: str, name: str) -> bool:
        """Take an edit out of its turn; whether it was there."""
        for lane in self._lanes.values():
            ids = lane.get(tenant)
            if ids is not None and name in ids:
                del ids[name]
                if not ids:
                    del lane[tenant]
                return True
        return False

    def pop(self, may_start: Callable[[str], bool]) -> Waiting | None:
        """The next edit of a tenant that may start one, or None."""
        order: tuple[Priority, Priority] = ("interactive", "batch")
        if self._row >= _INTERACTIVE_IN_A_ROW:
            order = ("batch", "interactive")
        for priority in order:
            found = self._pop_from(priority, may_start)
            if found is not None:
                self._row = self._row + 1 if priority == "interactive" else 0
                return found
        return None

    def _pop_from(self, priority: Priority, may_start: Callable[[str], bool]) -> Waiting | None:
        lane = self._lanes[priority]
        for tenant in list(lane):
            if not may_start(tenant):
                continue
            name, _ = lane[tenant].popitem(last=False)
            if lane[tenant]:
                lane.move_to_end(tenant)  # its next one after everybody else's
            else:
                del lane[tenant]
            return Waiting(tenant, name, priority)
        return None
