"""Fair shares by cost: what two always waiting names get, newcomers, debts, and the guarantee."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.turns import Guarantee, Turns

costs = st.floats(0.001, 100)


@given(st.lists(st.tuples(costs, costs, costs), min_size=30, max_size=120))
def test_whoever_always_waits_gets_the_same_up_to_one_service(
    prices: list[tuple[float, float, float]],
) -> None:
    names = ["a", "b", "c"]
    turns: Turns[str] = Turns()
    served = dict.fromkeys(names, 0.0)
    for price in prices:
        name = turns.turn(names)
        cost = price[names.index(name)]
        turns.charge(name, cost)
        served[name] += cost
        most = max(max(p) for p in prices)
        assert max(served.values()) - min(served.values()) <= most * (1 + 1e-9)


def test_names_of_equal_cost_take_turns_in_their_order() -> None:
    turns: Turns[str] = Turns()
    order = []
    for _ in range(6):
        order.append(turns.turn(["a", "b", "c"]))
        turns.charge(order[-1], 1.0)
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_a_newcomer_is_served_next_and_has_no_savings() -> None:
    turns: Turns[str] = Turns()
    for _ in range(100):
        turns.charge(turns.turn(["old"]), 5.0)
    order = []
    for _ in range(4):
        order.append(turns.turn(["old", "new"]))
        turns.charge(order[-1], 5.0)
    assert order.count("new") == 2  # once at most before, and then in turn
    assert "new" in order[:2]


def test_a_debt_outlives_a_pause() -> None:
    """Who asks for one dear thing at a time pays as who queues them."""
    turns: Turns[str] = Turns()
    served = {"dear": 0.0, "cheap": 0.0}
    away = 0
    for _ in range(400):
        waiting = ["cheap"] if away else ["dear", "cheap"]
        away = max(0, away - 1)
        name = turns.turn(waiting)
        cost = 10.0 if name == "dear" else 1.0
        turns.charge(name, cost)
        served[name] += cost
        if name == "dear":
            away = 1  # it takes its answer and asks again
    # it is away half of the time and still had its part alone, or every other turn, not more
    assert 0.8 <= served["dear"] / served["cheap"] <= 1.1


def test_newcomers_without_end_starve_nobody() -> None:
    """And what nobody is owed is forgotten."""
    turns: Turns[int] = Turns()
    served = 0
    for number in range(1000):
        name = turns.turn([-1, number])
        served += name == -1
        turns.charge(name, 1.0)
    assert served >= 300
    assert len(turns._credits) < 20


def contest(share: float, batch_cost: float, seconds: float) -> tuple[float, float, float]:
    """Both wait all the time: what each was given, and the longest that batch work waited."""
    guarantee = Guarantee(share)
    given = {"interactive": 0.0, "batch": 0.0}
    waited = longest = 0.0
    while sum(given.values()) < seconds:
        if guarantee.batch_goes_first(batch_cost):
            guarantee.served("batch", batch_cost, both_waited=True)
            given["batch"] += batch_cost
            waited = 0.0
        else:
            guarantee.served("interactive", 1.0, both_waited=True)
            given["interactive"] += 1.0
            waited += 1.0
            longest = max(longest, waited)
    return given["interactive"], given["batch"], longest


@given(st.floats(0.05, 0.9), st.floats(0.1, 50))
def test_batch_work_has_its_share_and_never_starves(share: float, cost: float) -> None:
    interactive, batch, longest = contest(share, cost, 2000.0)
    assert batch / (interactive + batch) == pytest.approx(share, abs=(cost + 1) / 1000)
    # the bound that the docstring of the guarantee implies, and one interactive step
    assert longest <= (1 - share) / share * cost + 1 + 1e-6


def test_without_a_share_interactive_work_always_goes_first() -> None:
    assert contest(0.0, 1.0, 100.0)[1] == 0


def test_a_short_burst_is_not_interrupted() -> None:
    guarantee = Guarantee(0.25)
    for _ in range(11):  # 11 s earn batch work 2.75 s; its next batch needs .75 x 4 s
        assert not guarantee.batch_goes_first(4.0)
        guarantee.served("interactive", 1.0, both_waited=True)
    guarantee.served("interactive", 1.0, both_waited=True)
    assert guarantee.batch_goes_first(4.0)


def test_nothing_is_owed_while_nobody_is_in_the_way() -> None:
    guarantee = Guarantee(0.5)
    guarantee.served("interactive", 8.0, both_waited=True)
    guarantee.served("batch", 100.0, both_waited=False)  # it had the thread for itself
    assert not guarantee.batch_goes_first(0.1)
    for _ in range(100):
        guarantee.served("interactive", 1.0, both_waited=False)
    assert not guarantee.batch_goes_first(0.1)  # nobody waited meanwhile
    with pytest.raises(ValueError, match="expected 0 to 1"):
        Guarantee(1.5)
