"""Bundles: what coroutines ask in one turn of their loop goes in one message; nobody is hurt."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from actors.bundles import Bundles
from actors.lanes import Outcome
from actors.sender import Sender
from farm.calls import Answer, Call
from farm.errors import BackboneLostError, QueueFullError
from tests.actors.hosts import call, value_of

EDIT, OTHER = Sender("training"), Sender("training", "interactive")


class Wire:
    """Sends messages: holds each until released, then echoes it."""

    def __init__(self, *, held: bool = False, fails: bool = False) -> None:
        self.messages: list[tuple[Sender, list[float]]] = []
        self.cancelled = 0
        self.sent, self.released = asyncio.Event(), asyncio.Event()
        self._fails = fails
        if not held:
            self.released.set()

    async def ask(self, calls: Sequence[Call], sender: Sender) -> list[Outcome]:
        self.messages.append((sender, [float(c.arrays["value"]) for c in calls]))
        self.sent.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._fails:
            raise BackboneLostError("gone")
        odd = [float(c.arrays["value"]) < 0 for c in calls]
        return [
            QueueFullError("full") if negative else Answer(dict(c.arrays), {}, 0.0, 1)
            for c, negative in zip(calls, odd, strict=True)
        ]


def values(outcomes: Sequence[Outcome]) -> list[float]:
    return [value_of(outcome) for outcome in outcomes]


def together(*asked: Coroutine[Any, Any, list[Outcome]]) -> list[list[Outcome]]:
    async def all_of_them() -> list[list[Outcome]]:
        return await asyncio.gather(*asked)

    return asyncio.run(all_of_them())


def test_what_is_asked_in_one_turn_goes_in_one_message_and_each_gets_its_own() -> None:
    wire = Wire()
    bundles = Bundles(wire.ask, 16)
    asked = [bundles.outcomes([call(2 * n), call(2 * n + 1)], EDIT) for n in range(5)]
    found = together(*asked)
    assert [values(outcomes) for outcomes in found] == [[2 * n, 2 * n + 1] for n in range(5)]
    assert [sent for _, sent in wire.messages] == [[*range(10)]]


def test_callers_that_step_together_stay_together() -> None:
    """A trainer asks again once it has its answer: sixteen of them, four steps, four messages."""
    wire = Wire()
    bundles = Bundles(wire.ask, 16)

    async def train(number: int) -> list[Outcome]:
        last: list[Outcome] = []
        for step in range(4):
            last = await bundles.outcomes([call(100 * step + number)], EDIT)
            assert values(last) == [100 * step + number]
        return last

    together(*[train(number) for number in range(16)])
    assert [len(sent) for _, sent in wire.messages] == [16] * 4


def test_other_keys_senders_and_mixed_calls_have_messages_of_their_own() -> None:
    wire = Wire()
    bundles = Bundles(wire.ask, 16)
    found = together(
        bundles.outcomes([call(1)], EDIT),
        bundles.outcomes([call(2, "toy.other")], EDIT),
        bundles.outcomes([call(3)], OTHER),
        bundles.outcomes([call(4), call(5, "toy.other")], EDIT),
        bundles.outcomes([call(6)], EDIT),
    )
    assert [values(outcomes) for outcomes in found] == [[1], [2], [3], [4, 5], [6]]
    assert sorted(wire.messages, key=str) == sorted(
        [(EDIT, [1.0, 6.0]), (EDIT, [2.0]), (OTHER, [3.0]), (EDIT, [4.0, 5.0])], key=str
    )


def test_a_message_holds_no_more_than_it_may() -> None:
    wire = Wire()
    bundles = Bundles(wire.ask, 4)
    found = together(*[bundles.outcomes([call(n), call(n)], EDIT) for n in range(5)])
    assert [values(outcomes) for outcomes in found] == [[n, n] for n in range(5)]
    assert [sent for _, sent in wire.messages] == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4]]


def test_a_refused_call_is_its_callers_alone() -> None:
    bundles = Bundles(Wire().ask, 16)
    good, bad = together(bundles.outcomes([call(1)], EDIT), bundles.outcomes([call(-1)], EDIT))
    assert values(good) == [1]
    assert isinstance(bad[0], QueueFullError)


def test_what_becomes_of_a_message_is_told_to_all_in_it() -> None:
    async def main() -> list[Any]:
        bundles = Bundles(Wire(fails=True).ask, 16)
        asked = [bundles.outcomes([call(n)], EDIT) for n in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in asyncio.run(main())] == [BackboneLostError] * 3


@pytest.mark.parametrize("leaving", [1, 2])
def test_who_gives_up_leaves_the_others_in_peace(leaving: int) -> None:
    """Only when nobody awaits a message any more is it given up."""

    async def main() -> tuple[Wire, list[Any]]:
        wire = Wire(held=True)
        bundles = Bundles(wire.ask, 16)
        tasks = [asyncio.create_task(bundles.outcomes([call(n)], EDIT)) for n in range(2)]
        await wire.sent.wait()
        for task in tasks[:leaving]:
            task.cancel()
        await asyncio.sleep(0)
        wire.released.set()
        return wire, await asyncio.gather(*tasks, return_exceptions=True)

    wire, (first, second) = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert wire.cancelled == (leaving == 2)
    if leaving == 1:
        assert values(second) == [1]


def test_nothing_is_sent_for_those_who_have_gone_already() -> None:
    async def main() -> Wire:
        wire = Wire()
        bundles = Bundles(wire.ask, 16)
        asked = bundles.outcomes([call(1)], EDIT)
        asked.send(None)  # it waits for the end of this turn
        asked.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return wire

    assert not asyncio.run(main()).messages


def test_one_executor_serves_several_loops() -> None:
    wire = Wire()
    bundles = Bundles(wire.ask, 16)
    for number in range(2):
        (found,) = together(bundles.outcomes([call(number)], EDIT))
        assert values(found) == [number]
    assert [sent for _, sent in wire.messages] == [[0], [1]]
