"""Asking again, and where: no Ray here."""

from typing import Any

import pytest

from actors.errand import Errand
from actors.replicas import Choice, Replica
from actors.sender import ANYBODY, Sender
from farm.calls import Answer
from farm.errors import BackboneLostError, EditDivergedError, EditFailedError, QueueFullError
from tests.actors.hosts import call, value_of


def answered(*values: float) -> list[Answer]:
    return [Answer(call(value).arrays, {}, 0.0) for value in values]


def test_answers_come_in_the_order_of_the_calls_whatever_the_chunks() -> None:
    errand = Errand([call(value) for value in range(5)], Sender("me"))
    chunks = list(errand.chunks(2))
    assert [numbers for numbers, _, _ in chunks] == [[0, 1], [2, 3], [4]]
    assert all(sender == Sender("me") for _, _, sender in chunks)
    errand.take([(numbers, answered(*numbers)) for numbers, _, _ in reversed(chunks)])
    answers = errand.answers()
    assert answers is not None
    assert [value_of(a) for a in answers] == [0, 1, 2, 3, 4]


def test_what_was_refused_is_asked_again_ever_more_slowly() -> None:
    errand = Errand([call(0), call(1)], ANYBODY)
    pauses = []
    for _ in range(8):
        refused: list[Any] = [QueueFullError("full")] * 2
        pause, refusal = errand.take([([0, 1], refused)])
        assert isinstance(refusal, QueueFullError)
        pauses.append(pause)
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert pauses[-1] == 2.0
    errand.take([([0], answered(0))])
    assert [numbers for numbers, _, _ in errand.chunks(16)] == [[1]]
    assert errand.answers() is None


def test_calls_that_hung_are_asked_apart_and_then_held_to_be_the_cause() -> None:
    errand = Errand([call(0), call(1), call(2)], ANYBODY)
    lost = BackboneLostError("hung")
    errand.take([([0, 1], [lost, lost]), ([2], answered(2))])
    ((numbers, _, sender),) = errand.chunks(16)
    assert (numbers, sender.attempt) == ([0, 1], 1)
    errand.take([([0, 1], [*answered(0), lost])])
    ((numbers, _, sender),) = errand.chunks(16)
    assert (numbers, sender.attempt) == ([1], 2)
    with pytest.raises(EditFailedError, match="3 steps in a row hung"):
        errand.take([([1], [lost])])


def test_an_error_of_a_call_is_the_caller_s() -> None:
    errand = Errand([call(0), call(1)], ANYBODY)
    with pytest.raises(EditDivergedError):
        errand.take([([0, 1], [*answered(0), EditDivergedError("nan")])])


def test_home_is_asked_unless_another_has_much_less_to_do() -> None:
    replicas = [Replica("a"), Replica("b"), Replica("c")]
    choice = Choice(home=4)
    assert all(choice.of(replicas) is replicas[1] for _ in range(20))
    replicas[1].depth = 8
    assert all(choice.of(replicas) is replicas[1] for _ in range(20))
    replicas[1].outstanding = 1
    assert {choice.of(replicas).handle for _ in range(40)} == {"a", "c"}
    replicas[0].outstanding = 30
    found = [choice.of(replicas).handle for _ in range(40)]
    assert set(found) == {"b", "c"}  # of home and the other that was drawn, the less loaded
    assert Choice(7).of(replicas[:1]) is replicas[0]


def test_callers_spread_over_what_they_know_to_be_full() -> None:
    """Many callers that see the same old figures do not all go to the emptiest."""
    asked = [0] * 8
    for caller in range(400):
        replicas = [Replica(number, depth=20 + number) for number in range(8)]
        asked[Choice(caller).of(replicas).handle] += 1
    assert min(asked) >= 25
