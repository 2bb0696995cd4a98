"""Calls that coroutines make in one turn of their event loop, in one message. No Ray here.

A batch's answers come back together, so trainers in one process ask again together; a message for
each of them would cost both processes some milliseconds, in which the network rests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeAlias

from actors.lanes import Outcome
from actors.sender import Sender
from farm.calls import Call

Ask: TypeAlias = Callable[[Sequence[Call], Sender], Awaitable[list[Outcome]]]
"""Sends one message and awaits the outcomes of its calls, in their order."""


class Bundles:
    """Puts calls of one key and sender in one message; they would share a batch anyway.

    Calls of other keys never wait for each other. Who gives up leaves the others undisturbed; when
    all have, so does the message.

    Args:
        ask: how a message is sent.
        most: calls in one message.
    """

    def __init__(self, ask: Ask, most: int) -> None:
        self._ask, self._most = ask, most
        self._open: dict[Hashable, _Bundle] = {}

    async def outcomes(self, calls: Sequence[Call], sender: Sender) -> list[Outcome]:
        """In the order of the calls.

        Raises:
            FarmError: what became of the message as a whole, to all whose calls were in it.
        """
        keys = {call.key for call in calls}
        if len(keys) != 1:
            return await self._ask(calls, sender)
        where = (asyncio.get_running_loop(), sender, keys.pop())  # an executor may serve several
        bundle = self._open.get(where)
        if bundle is None or len(bundle.calls) + len(calls) > self._most:
            bundle = self._open[where] = _Bundle(self, where, sender)
        start = len(bundle.calls)
        bundle.calls += calls
        bundle.riders += 1
        try:
            outcomes = await asyncio.shield(bundle.trip)
        finally:
            bundle.riders -= 1
            if not bundle.riders:
                self.close(where, bundle)
                bundle.trip.cancel()  # of no effect on one that is over
        return outcomes[start : start + len(calls)]

    async def leave(self, where: Hashable, bundle: "_Bundle", sender: Sender) -> list[Outcome]:
        """Runs once this turn of the loop is over."""
        self.close(where, bundle)
        return await self._ask(bundle.calls, sender)

    def close(self, where: Hashable, bundle: "_Bundle") -> None:
        """Nobody gets in any more."""
        if self._open.get(where) is bundle:
            del self._open[where]


class _Bundle:
    """One message; `riders` await it."""

    def __init__(self, bundles: Bundles, where: Hashable, sender: Sender) -> None:
        self.calls: list[Call] = []
        self.riders = 0
        self.trip = asyncio.create_task(bundles.leave(where, self, sender))
