"""Calls that coroutines make in one turn of their event loop, in one message. No Ray here.

A batch's answers come back together, so trainers in one process ask again together; a message for
each of them would cost both processes some milliseconds, in which the network rests.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from actors.lanes import Outcome
from actors.sender import Sender
from farm.calls import Call

Ask: TypeAlias = Callable[[Sequence[Call], Sender], Awaitable[list[Outcome]]]
"""Sends one message and awaits the outcomes of its calls, in their order."""


@dataclass(eq=False)
class _Bundle:
    sender: Sender
    calls: list[Call] = field(default_factory=list[Call])
    riders: int = 0
    """Who still awaits it."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    trip: "asyncio.Task[list[Outcome]] | None" = None


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
        loop = asyncio.get_running_loop()
        where = (loop, sender, keys.pop())  # an executor may serve several loops
        bundle = self._open.get(where)
        if bundle is not None and len(bundle.calls) + len(calls) > self._most:
            self._leave(where, bundle)
            bundle = None
        if bundle is None:
            bundle = self._open[where] = _Bundle(sender)
            loop.call_soon(self._leave, where, bundle)
        start = len(bundle.calls)
        bundle.calls += calls
        bundle.riders += 1
        try:
            await bundle.left.wait()
            assert bundle.trip is not None
            outcomes = await asyncio.shield(bundle.trip)
        finally:
            bundle.riders -= 1
            if bundle.trip is not None and not bundle.riders:
                bundle.trip.cancel()  # of no effect on one that is over
        return outcomes[start : start + len(calls)]

    def _leave(self, where: Hashable, bundle: _Bundle) -> None:
        """Send a bundle that has not left, unless nobody awaits it any more."""
        if self._open.get(where) is not bundle:
            return
        del self._open[where]
        if bundle.riders:
            bundle.trip = asyncio.ensure_future(self._ask(bundle.calls, bundle.sender))
            bundle.left.set()
