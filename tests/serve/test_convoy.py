"""Questions that go together while others are under way."""

import asyncio

import pytest

from serve.convoy import Convoy


class Road:
    """Answers with squares, once it is opened; a message with a 7 gets lost."""

    def __init__(self):
        self.messages, self.open = [], asyncio.Event()

    async def send(self, questions):
        self.messages.append(list(questions))
        await self.open.wait()
        if 7 in questions:
            raise ConnectionError("lost")
        return [question**2 for question in questions]


async def asked(convoy, *questions):
    """Tasks of these, all of which have asked."""
    tasks = [asyncio.create_task(convoy.ask(question)) for question in questions]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_meanwhile_goes_together_and_each_gets_its_own_answer():
    road = Road()
    convoy = Convoy(road.send, most=3)
    tasks = await asked(convoy, 1) + await asked(convoy, 2, 3, 4, 5)
    assert road.messages == [[1]]  # the first waits for nobody
    road.open.set()
    assert await asyncio.gather(*tasks) == [1, 4, 9, 16, 25]
    assert road.messages == [[1], [2, 3, 4], [5]]
    assert await convoy.ask(6) == 36  # it goes on after a rest


async def test_a_message_that_is_lost_is_lost_for_those_in_it():
    road = Road()
    convoy = Convoy(road.send)
    tasks = await asked(convoy, 1) + await asked(convoy, 7, 8)
    road.open.set()
    assert await tasks[0] == 1
    for task in tasks[1:]:
        with pytest.raises(ConnectionError):
            await task
    assert await convoy.ask(9) == 81


async def test_who_goes_away_changes_nothing_for_the_others():
    road = Road()
    convoy = Convoy(road.send)
    first, second, third = await asked(convoy, 1) + await asked(convoy, 2, 3)
    first.cancel()
    second.cancel()
    road.open.set()
    assert await third == 9
