"""The loop of a job against a flight that does as it is told; time passes only when it waits."""

import pytest

from farm.errors import (
    BackboneLostError,
    BudgetExceededError,
    EditCancelledError,
    EditDivergedError,
    EditHungError,
    InvalidImageError,
    OutOfMemoryError,
    StoreError,
)
from farm.results import EditResult
from farm.runner.failures import POLICY, FailureKind, Rule, Tries, classify
from farm.storage.store import MissingKeyError, UnusableStoreError
from jobs.dispatch import Stopped, Wish
from tests.jobs.flights import FakeFlight, dispatcher, edit, outcomes


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidImageError("x"), FailureKind.request),
        (EditDivergedError("x"), FailureKind.poison),
        (EditCancelledError("x"), FailureKind.cancelled),
        (BudgetExceededError("x"), FailureKind.budget),
        (BackboneLostError("x"), FailureKind.transient),
        (StoreError("x"), FailureKind.transient),
        (UnusableStoreError("x"), FailureKind.transient),
        (MissingKeyError("x"), FailureKind.poison),
        (OutOfMemoryError("x"), FailureKind.memory),
        (EditHungError("x"), FailureKind.hung),
    ],
)
def test_the_kind_of_a_failure(error, kind):
    assert classify(error) is kind


def test_every_kind_has_a_rule_and_none_is_tried_without_end():
    assert POLICY.keys() == set(FailureKind)
    for kind, rule in POLICY.items():
        tries = Tries({})
        pauses = [tries.next_pause(kind) for _ in range(rule.retries + 3)]
        assert [pause is None for pause in pauses] == [False] * rule.retries + [True] * 3


def test_pauses_double_up_to_a_limit_and_spread():
    rule = Rule(retries=9, first_pause=1.0, longest_pause=10.0)
    assert [rule.pause(n, spread=1.0) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 8.0, 10.0]
    assert rule.pause(3, spread=0.0) == 2.0
    assert all(2.0 <= rule.pause(3) <= 4.0 for _ in range(50))


def test_all_edits_run_bounded_and_are_drawn_as_room_is_free():
    flight = FakeFlight()
    drawn = []

    def edits():
        for number in range(30):
            drawn.append(number)
            yield f"e{number}", edit(f"s{number}")

    made = dispatcher(flight, in_flight=3)
    run = made.run(edits())
    next(run)
    assert len(drawn) <= 3 + 4 * 3
    assert len(list(run)) == 29
    assert flight.most == 3


def test_edits_of_one_inversion_wait_for_it_and_others_take_their_places():
    flight = FakeFlight(lasts=2.0)
    names = [f"{image}{target}" for image in "ab" for target in range(4)]
    found = outcomes(dispatcher(flight, in_flight=4), names, stage=lambda name: name[0])
    assert len(found) == 8
    first = {name[0]: at for at, name in reversed(flight.starts)}
    assert first["a"] == first["b"] == 0.0, "the second image need not wait for the first"
    rest = [at for at, name in flight.starts if name not in {"a0", "b0"}]
    assert min(rest) >= 2.0, "no target beside the one that makes its inversion"
    assert flight.most == 4, "then all at once"


def test_what_an_edit_needs_is_looked_up_once_however_many_wait():
    looks = []

    class Counted:
        edit_id = "x"

        @property
        def stages(self):
            looks.append(1)
            return {"inversion": "one for all"}

    made = dispatcher(FakeFlight(), in_flight=16)
    ended = list(made.run((str(n), Counted()) for n in range(200)))
    assert len(ended) == 200
    assert len(looks) == 2 * 200, "before its start, and when its stages are there"


def test_a_transient_failure_is_tried_again_ever_later():
    flight = FakeFlight({"a": [BackboneLostError("gone"), BackboneLostError("gone"), None]})
    made = dispatcher(flight)
    assert isinstance(outcomes(made, "a")["a"], EditResult)
    assert [name for _, name in flight.starts] == ["a", "a", "a"]
    retried = [about for kind, about in made.notes if kind == "retried"]
    assert [about["kind"] for about in retried] == ["transient", "transient"]
    assert retried[1]["pause"] > retried[0]["pause"] * 0.99


def test_a_transient_failure_that_stays_fails_and_may_be_tried_by_the_next_run():
    flight = FakeFlight({"a": [BackboneLostError("gone")] * 99})
    outcome = outcomes(dispatcher(flight), "ab")["a"]
    assert isinstance(outcome, BackboneLostError)
    assert outcome.retryable
    tries = POLICY[FailureKind.transient].retries + 1
    assert f"the last of {tries} tries" in outcome.message
    assert [name for _, name in flight.starts].count("a") == tries


def test_poison_fails_alone_and_at_once():
    flight = FakeFlight({"b": [EditDivergedError("not finite")]})
    found = outcomes(dispatcher(flight), "abc")
    assert isinstance(found["b"], EditDivergedError)
    assert isinstance(found["a"], EditResult)
    assert isinstance(found["c"], EditResult)
    assert len(flight.starts) == 3


def test_short_memory_runs_fewer_beside_then_is_poison():
    flight = FakeFlight({"a": [OutOfMemoryError("full")] * 9})
    made = dispatcher(flight, in_flight=4)
    found = outcomes(made, ["a", *(f"e{n}" for n in range(6))])
    assert isinstance(found["a"], OutOfMemoryError)
    assert [name for _, name in flight.starts].count("a") == 3
    assert [about["room"] for kind, about in made.notes if kind == "retried"] == [2, 1]


def test_the_job_stops_when_it_has_cost_what_it_may():
    flight = FakeFlight(lasts=5.0, cost=1.0)
    made = dispatcher(flight, in_flight=2, accelerator_seconds=12.0)
    found = outcomes(made, [f"e{n}" for n in range(50)])
    assert made.stopped is Stopped.budget
    assert len(found) == 2
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    assert 12.0 <= made.spent <= 14.0


def test_an_ill_machine_is_waited_for_and_counts_against_no_edit():
    flight = FakeFlight({"a": [StoreError("down")] * 20}, healthy=False, heals_at=100.0)
    made = dispatcher(flight, patience=1000.0)
    assert outcomes(made, "abc").keys() == set("abc")
    kinds = [kind for kind, _ in made.notes]
    assert kinds.count("waiting") == 1
    assert "recovered" in kinds
    assert "retried" not in kinds
    between = [at for at, _ in flight.starts if 2.0 < at < 100.0]
    assert between == [], "nothing is started on an ill machine"


def test_patience_ends_and_the_job_stops_without_failing_anything():
    flight = FakeFlight({"a": [StoreError("down")] * 20}, healthy=False)
    made = dispatcher(flight, in_flight=1, patience=60.0)
    assert outcomes(made, "abc") == {}
    assert made.stopped is Stopped.infrastructure
    assert 60.0 < flight.now < 200.0


def test_a_pause_finishes_what_runs_and_starts_nothing():
    flight = FakeFlight()
    wish = lambda: Wish.pause if 1.0 <= flight.now < 50.0 else Wish.run  # noqa: E731
    made = dispatcher(flight, in_flight=2, wish=wish)
    found = outcomes(made, [f"e{n}" for n in range(6)])
    assert len(found) == 6
    assert not [at for at, _ in flight.starts if 1.5 < at < 50.0]


def test_a_cancelled_job_leaves_the_rest():
    flight = FakeFlight(lasts=2.0)
    wish = lambda: Wish.cancel if flight.now >= 3.0 else Wish.run  # noqa: E731
    made = dispatcher(flight, in_flight=2, wish=wish)
    found = outcomes(made, [f"e{n}" for n in range(20)])
    assert made.stopped is Stopped.cancelled
    assert len(found) == 2
    assert flight.running == {}


def test_who_does_not_stop_is_ended_by_force():
    flight = FakeFlight(silent={"a"})
    wish = lambda: Wish.cancel if flight.now >= 1.0 else Wish.run  # noqa: E731
    made = dispatcher(flight, wish=wish)
    assert outcomes(made, "a") == {}
    assert made.stopped is Stopped.cancelled
    assert 15.0 < flight.now < 25.0


def test_stopping_early_stops_what_runs():
    flight = FakeFlight()
    run = dispatcher(flight).run((f"e{n}", edit(f"s{n}")) for n in range(9))
    next(run)
    run.close()
    assert flight.closed


def test_a_flight_with_one_place_gets_one_edit_at_a_time():
    flight = FakeFlight(places=1)
    assert len(outcomes(dispatcher(flight, in_flight=8), "abc")) == 3
    assert flight.most == 1
