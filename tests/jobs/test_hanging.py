"""What hangs, what waits, and who is to blame: the dispatcher without progress."""

import pytest

from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    EditDivergedError,
    EditHungError,
    UnavailableError,
)
from farm.results import EditResult
from jobs.dispatch import Stopped
from tests.jobs.flights import FakeFlight, dispatcher, edit, outcomes


def test_a_hung_edit_is_stopped_tried_once_more_and_then_poison():
    flight = FakeFlight(silent={"a"}, lasts=30.0)
    made = dispatcher(flight, hang_seconds=10.0)
    found = outcomes(made, "ab")
    assert isinstance(found["a"], EditHungError)
    assert "during inversion, step 1 of 100" in found["a"].message
    assert isinstance(found["b"], EditResult)
    assert [name for _, name in flight.starts].count("a") == 2
    assert flight.now < 120


def test_when_all_hang_the_backbones_are_restarted():
    flight = FakeFlight(silent={"a", "b"})
    made = dispatcher(flight, hang_seconds=10.0)
    found = outcomes(made, "ab")
    assert {type(outcome) for outcome in found.values()} == {EditHungError}
    assert flight.restarts >= 1


def test_an_edit_that_waits_for_room_does_not_hang():
    flight = FakeFlight(trainers=2, lasts=20.0)
    names = [f"e{n}" for n in range(24)]
    made = dispatcher(flight, in_flight=16, hang_seconds=10.0)
    found = outcomes(made, names)
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    assert len(flight.starts) == len(names), "each of them once"
    assert not [kind for kind, _ in made.notes if kind == "hung"]
    assert flight.now > 200.0, "the last ones waited long"


def test_an_edit_whose_machine_is_lost_waits_for_another_and_does_not_hang():
    flight = FakeFlight(silent={"a"}, lost_until=100.0)
    made = dispatcher(flight, hang_seconds=10.0)
    found = outcomes(made, "ab")
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    assert [name for _, name in flight.starts].count("a") == 1
    assert not {"hung", "restarted backbones"} & {kind for kind, _ in made.notes}
    assert 100.0 <= flight.now < 115.0


def test_a_trainer_that_began_may_take_longer_to_its_first_step_but_not_for_ever():
    flight = FakeFlight(stays={"a"})
    found = outcomes(dispatcher(flight, hang_seconds=10.0), "ab")
    assert isinstance(found["a"], EditHungError)
    assert "during its start" in found["a"].message
    assert 2 * 30.0 < flight.now < 2 * 35.0


def test_the_backbones_are_restarted_when_all_that_began_hang():
    flight = FakeFlight(silent={"a", "b"}, trainers=2)
    found = outcomes(dispatcher(flight, hang_seconds=10.0), "abc")
    assert flight.restarts >= 1
    assert isinstance(found["c"], EditResult)


def test_a_cluster_that_begins_nothing_stops_the_job_when_patience_ends():
    flight = FakeFlight(trainers=0)
    made = dispatcher(flight, patience=60.0)
    assert outcomes(made, "abc") == {}
    assert made.stopped is Stopped.infrastructure
    assert 60.0 < flight.now < 100.0
    told = [about for kind, about in made.notes if kind == "waiting"]
    assert len(told) == 1
    assert "wait for room" in told[0]["error"]


def test_a_cluster_that_has_room_late_is_told_to_be_well_again():
    class Late(FakeFlight):
        def finished(self, timeout):
            if self.now > 45.0:
                self.trainers = None
            return super().finished(timeout)

    made = dispatcher(Late(trainers=0), patience=600.0)
    found = outcomes(made, "abc")
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    kinds = [kind for kind, _ in made.notes]
    assert kinds.index("waiting") < kinds.index("recovered")
    assert kinds.count("waiting") == kinds.count("recovered") == 1
    (seconds,) = [about["seconds"] for kind, about in made.notes if kind == "recovered"]
    assert 45.0 < seconds < 60.0


@pytest.mark.parametrize("ends_with", [EditCancelledError("stopped"), BackboneLostError("gone")])
def test_who_hangs_on_an_ill_machine_is_not_held_to_be_the_cause(ends_with):
    flight = FakeFlight(silent={"a", "b"}, healthy=False, heals_at=100.0, ends_with=ends_with)
    made = dispatcher(flight, hang_seconds=10.0, patience=1000.0)
    found = outcomes(made, "abc")
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    kinds = [kind for kind, _ in made.notes]
    assert {"hung", "waiting", "recovered"} <= set(kinds)
    assert "retried" not in kinds
    between = [at for at, _ in flight.starts if 20.0 < at < 100.0]
    assert between == [], "nothing is started on an ill machine"


def test_patience_ends_too_when_edits_hang_because_nothing_answers():
    flight = FakeFlight(silent={"a", "b"}, healthy=False)
    made = dispatcher(flight, hang_seconds=10.0, patience=60.0)
    assert set(outcomes(made, "abc")) == {"c"}
    assert made.stopped is Stopped.infrastructure


def test_a_restart_of_the_backbones_excuses_nobody():
    """Else an edit that always hangs would restart them without end."""
    flight = FakeFlight(silent={"a"})
    made = dispatcher(flight, hang_seconds=10.0)
    restart, start = flight.restart_backbones, flight.start

    def restarted() -> None:
        restart()
        flight.healthy = False

    def started(name, request) -> None:
        start(name, request)
        flight.healthy = True  # they are loaded by the time

    flight.restart_backbones, flight.start = restarted, started
    run = made.run([("a", edit("a", "a"))])
    (ended,) = run
    assert isinstance(ended.outcome, EditHungError)
    assert flight.restarts == 2


def test_what_let_a_hung_edit_down_is_said_and_not_that_it_hung():
    flight = FakeFlight(stays={"a"}, ends_with=BackboneLostError("gone"))
    made = dispatcher(flight, hang_seconds=10.0)
    assert isinstance(outcomes(made, "a")["a"], BackboneLostError)
    retried = [about["kind"] for kind, about in made.notes if kind == "retried"]
    assert set(retried) == {"transient"}


def test_one_that_was_ended_by_force_hung_whatever_its_process_says():
    flight = FakeFlight(silent={"a"}, ends_with=UnavailableError("its process ended"))
    made = dispatcher(flight, hang_seconds=10.0)
    flight.stop = lambda name, *, force: flight.stopped.append((name, True)) if force else None
    assert isinstance(outcomes(made, "a")["a"], EditHungError)


@pytest.mark.parametrize("ends_with", [EditCancelledError("stopped"), BackboneLostError("gone")])
def test_an_edit_that_makes_the_machine_ill_each_time_is_not_excused_for_ever(ends_with):
    class Fragile(FakeFlight):
        """Its backbone is loaded anew whenever the edit is computed."""

        def is_healthy(self):
            return "a" not in self.running

    flight = Fragile(silent={"a"}, ends_with=ends_with)
    made = dispatcher(flight, hang_seconds=10.0, patience=1000.0)
    found = outcomes(made, "ab")
    assert isinstance(found["b"], EditResult)
    assert isinstance(found["a"], EditHungError | BackboneLostError)
    assert sum(name == "a" for _, name in flight.starts) < 12
    assert made.stopped is None


def test_edits_that_ended_while_nobody_listened_are_not_taken_for_hung():
    flight = FakeFlight(outcomes={"b": [EditDivergedError("the loss is not finite")]}, lasts=5.0)
    made = dispatcher(flight, hang_seconds=10.0)
    found = {}
    for ended in made.run((name, edit(name, name)) for name in "abc"):
        found[ended.name] = ended.outcome
        flight.now += 1200.0  # as long as a bucket did not take the first one's picture
    assert isinstance(found["b"], EditDivergedError)
    assert flight.restarts == 0
    assert "hung" not in [kind for kind, _ in made.notes]
