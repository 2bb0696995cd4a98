"""The loop of a job against a flight that does as it is told; time passes only when it waits."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from farm.errors import (
    BackboneLostError,
    BudgetExceededError,
    EditCancelledError,
    EditDivergedError,
    EditHungError,
    FarmError,
    InvalidImageError,
    OutOfMemoryError,
    StoreError,
    UnavailableError,
)
from farm.progress import STARTING
from farm.results import EditResult
from farm.runner.failures import POLICY, FailureKind, Rule, Tries, classify
from farm.storage.store import MissingKeyError, UnusableStoreError
from jobs.dispatch import Dispatcher, Limits, Stopped, Wish
from tests.jobs.outcome_examples import done_edit


def result() -> EditResult:
    return done_edit().result


def edit(stage: str = "", name: str = "x"):
    stages = {"inversion": stage} if stage else {}
    return SimpleNamespace(stages=stages, edit_id=name)


@dataclass
class FakeFlight:
    """Each edit takes `lasts` seconds, then gives the next of its outcomes (a result for None)."""

    outcomes: dict[str, list[FarmError | None]] = field(default_factory=dict)
    lasts: float = 1.0
    silent: set[str] = field(default_factory=set)
    healthy: bool = True
    places: int | None = None
    now: float = 0.0
    running: dict[str, float] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    most: int = 0
    restarts: int = 0
    closed: bool = False
    cost: float = 0.0
    trainers: int | None = None
    """How many edits Ray has room for: the others wait, and are silent."""
    stays: set[str] = field(default_factory=set)
    """Edits that say that they begin, and then nothing."""
    ends_with: FarmError = field(default_factory=lambda: EditCancelledError("stopped"))
    begun: dict[str, float] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def listen(self, watch) -> None:
        pass

    def start(self, name, request) -> None:
        assert name not in self.running
        self.running[name] = self.now
        self.starts.append((self.now, name))
        self.most = max(self.most, len(self.running))
        self.begin()

    def begin(self) -> None:
        for name in self.running:
            if self.trainers is None or len(self.begun) < self.trainers:
                self.begun.setdefault(name, self.now)

    def finished(self, timeout):
        self.now += timeout if self.running else 0.0
        ended = []
        for name in list(self.running):
            since = self.begun.get(name, math.inf)
            forced = (name, True) in self.stopped
            asked = (name, False) in self.stopped and name not in self.silent
            if forced or asked:
                ended.append((name, self.ends_with))
                self.stopped = [s for s in self.stopped if s[0] != name]
            elif name not in self.silent | self.stays and self.now - since >= self.lasts:
                left = self.outcomes.get(name, [])
                ended.append((name, (left.pop(0) if left else None) or result()))
        for name, _ in ended:
            del self.running[name]
            self.begun.pop(name, None)
        self.begin()
        return ended

    def messages(self):
        return {
            name: {
                "stage": STARTING if name in self.stays else "inversion",
                "step": 1 if name in self.silent | self.stays else int(2 * (self.now - since)),
                "total": 100,
                "detail": {"accelerator_seconds": self.cost * (self.now - since)},
            }
            for name, since in self.begun.items()
        }

    def stop(self, name, *, force) -> None:
        self.stopped.append((name, force))

    def is_healthy(self) -> bool:
        return self.healthy

    def restart_backbones(self) -> None:
        self.restarts += 1

    def load(self):
        return {}

    def close(self) -> None:
        self.closed = True


def dispatcher(flight: FakeFlight, *, in_flight: int = 4, **options) -> Dispatcher:
    limits = {k: options.pop(k) for k in list(options) if k in Limits.__dataclass_fields__}
    notes: list[tuple[str, dict]] = []
    made = Dispatcher(
        flight,
        Limits(in_flight=in_flight, **limits),
        note=lambda kind, about: notes.append((kind, dict(about))),
        clock=flight.clock,
        sleep=flight.sleep,
        **options,
    )
    made.notes = notes  # type: ignore[attr-defined]
    return made


def outcomes(made: Dispatcher, names, stage=lambda name: name) -> dict[str, object]:
    found = {}
    for ended in made.run((name, edit(stage(name), name)) for name in names):
        assert ended.name not in found, "one last outcome each"
        found[ended.name] = ended.outcome
    assert made.flight.closed
    return found


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
    flight = FakeFlight(silent={"a", "b"}, healthy=False, ends_with=ends_with)
    made = dispatcher(flight, hang_seconds=10.0, patience=1000.0)
    flight_sleep = flight.sleep

    def sleep(seconds: float) -> None:
        flight_sleep(seconds)
        if flight.now > 100.0:
            flight.healthy = True
            flight.silent.clear()

    made.sleep = sleep
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


def test_the_job_stops_when_it_has_cost_what_it_may():
    flight = FakeFlight(lasts=5.0, cost=1.0)
    made = dispatcher(flight, in_flight=2, accelerator_seconds=12.0)
    found = outcomes(made, [f"e{n}" for n in range(50)])
    assert made.stopped is Stopped.budget
    assert len(found) == 2
    assert all(isinstance(outcome, EditResult) for outcome in found.values())
    assert 12.0 <= made.spent <= 14.0


def test_an_ill_machine_is_waited_for_and_counts_against_no_edit():
    flight = FakeFlight({"a": [StoreError("down")] * 20}, healthy=False)
    made = dispatcher(flight, patience=1000.0)
    run = made.run((name, edit(name, name)) for name in "abc")
    flight_sleep = flight.sleep

    def sleep(seconds: float) -> None:
        flight_sleep(seconds)
        if flight.now > 100.0:
            flight.healthy = True
            flight.outcomes.clear()

    made.sleep = sleep
    assert {ended.name for ended in run} == set("abc")
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
