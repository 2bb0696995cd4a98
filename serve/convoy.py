"""Questions that come while earlier ones are under way, and then go together in one message."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")


class Convoy(Generic[_Question, _Answer]):
    """One message at a time, with all that waits.

    Nobody waits for others to come, and where many ask, each bears a part of a message's cost.

    Args:
        send: a message; its answers in order. What it raises, all in the message get.
        most: questions in a message.
    """

    def __init__(
        self,
        send: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer]]],
        most: int = 64,
    ) -> None:
        self._send, self._most = send, most
        self._waiting: deque[tuple[_Question, asyncio.Future[_Answer]]] = deque()
        self._under_way: asyncio.Task[None] | None = None

    async def ask(self, question: _Question) -> _Answer:
        """The answer to this one."""
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._go())
        return await answer

    async def _go(self) -> None:
        while self._waiting:
            number = min(self._most, len(self._waiting))
            together = [self._waiting.popleft() for _ in range(number)]
            try:
                found = await self._send([question for question, _ in together])
            except Exception as error:  # noqa: BLE001 - whoever asked handles it
                for _, answer in together:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), outcome in zip(together, found, strict=True):
                if not answer.done():  # whoever asked may have gone
                    answer.set_result(outcome)
