"""Where calls wait: one lane for each priority, in it a queue for each key and tenant."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from actors.sender import Sender
from actors.turns import Turns
from farm.calls import Answer, Call, Paused
from farm.errors import FarmError

Outcome: TypeAlias = Answer | FarmError
"""What became of a call. An error is a value here, since a list of calls may fail in part."""

Key: TypeAlias = tuple[Hashable, ...]


@dataclass(eq=False)
class Item:
    """A call on its way to its outcome.

    Attributes:
        work: the call, or where it is paused.
        sender: who asks.
        key: of `work`: who may share its batch.
        outcome: what the caller awaits; done: nobody awaits it any more.
        since: when it could first be computed.
    """

    work: Call | Paused
    sender: Sender
    key: Key
    outcome: "asyncio.Future[Outcome]"
    since: float

    @property
    def call(self) -> Call:
        """What is being answered."""
        return self.work.call if isinstance(self.work, Paused) else self.work


class Lane:
    """Items of one priority. Tenants take turns, and so do the keys of a tenant."""

    def __init__(self) -> None:
        self._queues: dict[Key, dict[str, deque[Item]]] = {}
        self._tenants: Turns[str] = Turns()
        self._keys: Turns[Key] = Turns()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def keys(self) -> dict[Key, int]:
        """How many wait, by key."""
        return {key: self.waiting(key) for key in list(self._queues)}  # asked from other threads

    def items(self) -> Iterator[Item]:
        """All that wait."""
        for tenants in self._queues.values():
            for queue in tenants.values():
                yield from queue

    def add(self, item: Item) -> None:
        """At the end of its queue."""
        self._queue(item).append(item)
        self._size += 1

    def put_back(self, items: Sequence[Item]) -> None:
        """Before all others of their queues, in this order."""
        for item in reversed(items):
            self._queue(item).appendleft(item)
            self._size += 1

    def next_key(self) -> Key:
        """Key of the next batch: the least served of the least served tenant. Something waits."""
        waiting = {tenant for tenants in self._queues.values() for tenant in tenants}
        tenant = self._tenants.turn(waiting)
        keys = [key for key, tenants in self._queues.items() if tenant in tenants]
        return self._keys.turn(keys)

    def waiting(self, key: Key) -> int:
        """Items of a key."""
        return sum(map(len, list(self._queues.get(key, {}).values())))

    def take(self, key: Key, most: int) -> list[Item]:
        """Items of a key for one batch: of each tenant in turn one, its oldest."""
        tenants = self._queues.get(key, {})
        taken: list[Item] = []
        while tenants and len(taken) < most:
            for tenant in self._tenants.ranked(list(tenants)):
                if len(taken) == most:
                    break
                taken.append(tenants[tenant].popleft())
                if not tenants[tenant]:
                    del tenants[tenant]
        if not tenants:
            self._queues.pop(key, None)
        self._size -= len(taken)
        return taken

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Take these out."""
        removed = [item for item in self.items() if unwanted(item)]
        gone = set(map(id, removed))
        if gone:
            kept = [item for item in self.items() if id(item) not in gone]
            self._queues.clear()
            self._size = 0
            for item in kept:
                self.add(item)
        return removed

    def charge(self, items: list[Item], key: Key, seconds: float) -> None:
        """Note what a batch cost; each item carries an equal part of it."""
        self._keys.charge(key, seconds * len(items))
        for item in items:
            self._tenants.charge(item.sender.tenant, seconds)

    def _queue(self, item: Item) -> deque[Item]:
        tenants = self._queues.setdefault(item.key, {})
        return tenants.setdefault(item.sender.tenant, deque())
