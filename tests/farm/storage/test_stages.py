import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from farm.errors import EditCancelledError, EditDivergedError, StoreError
from farm.storage.checkpoints import load_checkpoint, save_checkpoint
from farm.storage.commits import commit, read_commit, read_file
from farm.storage.layout import checkpoint_key, commit_key
from farm.storage.leases import LeaseLostError, acquire
from farm.storage.stages import wait_or_compute
from tests.farm.storage.fakes import FakeClock, LosesReplies, WrappedStore

TARGET = "tenants/acme/stages/d1"


class Stage:
    """One caller of the stage on a fake clock; `events` are run by its sleeps, in order."""

    def __init__(self, store):
        self.store = store
        self.clock = FakeClock()
        self.events = []
        self.leases = []

    def sleep(self, seconds):
        self.clock.sleep(seconds)
        if self.events:
            self.events.pop(0)()

    def compute(self, lease):
        self.leases.append(lease)
        return {"trajectory": b"z_0 z_1"}

    def run(self, compute=None, *, owner="me", store=None, should_stop=lambda: False):
        return wait_or_compute(
            store or self.store,
            TARGET,
            owner,
            compute or self.compute,
            ttl=10.0,
            poll=1.0,
            clock=self.clock,
            sleep=self.sleep,
            should_stop=should_stop,
        )

    def acquire(self, owner):
        return acquire(self.store, TARGET, owner, ttl=10.0, clock=self.clock)


@pytest.fixture
def stage(store):
    return Stage(store)


def test_the_first_computes_and_the_second_reads(stage):
    record, computed = stage.run(owner="first")
    assert computed
    assert read_file(stage.store, TARGET, record, "trajectory") == b"z_0 z_1"
    assert record.extra == {"owner": "first", "epoch": 1}
    again, computed = stage.run(owner="second")
    assert not computed
    assert again == record.model_copy(update={"won": False})
    assert len(stage.leases) == 1
    assert stage.acquire("third") is not None  # the lease was given back


def test_waits_for_who_holds_the_lease(stage):
    stage.acquire("other")
    stage.events = [
        lambda: None,
        lambda: commit(stage.store, TARGET, "u1", {"trajectory": b"other's"}),
    ]
    start = stage.clock.now
    record, computed = stage.run()
    assert (record.attempt, computed) == ("u1", False)
    assert stage.clock.now - start == 2
    assert stage.leases == []


def test_takes_over_from_the_dead(stage):
    stage.acquire("dead")
    start = stage.clock.now
    _, computed = stage.run()
    assert computed
    assert stage.leases[0].epoch == 2
    assert stage.clock.now - start == 10


def test_a_task_started_anew_does_not_wait_for_its_own_lease(stage):
    stage.acquire("task/dead")
    started = stage.clock.now
    _, computed = stage.run(owner="task/2")
    assert computed
    assert stage.clock.now == started


def test_who_was_taken_for_dead_does_not_take_it_back(stage):
    def overtaken(lease):
        heir = acquire(stage.store, TARGET, "task/heir", ttl=10.0, clock=stage.clock, inherits=True)
        stage.events = [
            heir.renew,
            lambda: commit(stage.store, TARGET, "u1", {"trajectory": b"the heir's"}),
        ]
        lease.renew()

    record, _ = stage.run(overtaken, owner="task/zombie")
    assert record.attempt == "u1"
    assert stage.events == []


def test_resumes_from_the_checkpoint_and_clears_it(stage):
    save_checkpoint(stage.store, TARGET, b"step 40", stage.acquire("dead"))

    def resume(lease):
        state = load_checkpoint(stage.store, TARGET)
        save_checkpoint(stage.store, TARGET, b"step 50", lease)
        return {"state": state}

    record, _ = stage.run(resume)
    assert read_file(stage.store, TARGET, record, "state") == b"step 40"
    assert load_checkpoint(stage.store, TARGET) is None


def test_a_failure_is_passed_on_and_the_next_may_try(stage):
    def fail(lease):
        save_checkpoint(stage.store, TARGET, b"so far", lease)
        raise EditDivergedError("loss is nan")

    with pytest.raises(EditDivergedError, match="loss is nan"):
        stage.run(fail)
    assert read_commit(stage.store, TARGET) is None
    assert load_checkpoint(stage.store, TARGET) == b"so far"
    start = stage.clock.now
    _, computed = stage.run(owner="next")
    assert computed
    assert stage.clock.now == start  # at once, not when the lease would have expired


def test_a_failure_outlives_a_store_that_fails_at_the_release(stage):
    def fail(_lease):
        raise EditDivergedError("loss is nan")

    flaky = LosesReplies(stage.store, "put_if_match", "lease.json")
    with pytest.raises(EditDivergedError, match="loss is nan"):
        stage.run(fail, store=flaky)


def test_who_lost_its_lease_waits_for_the_other(stage):
    def too_slow(lease):
        stage.clock.sleep(10)
        stage.acquire("other")
        stage.events = [lambda: commit(stage.store, TARGET, "u1", {"trajectory": b"other's"})]
        with pytest.raises(LeaseLostError):
            lease.renew()
        lease.renew_if_due()
        raise AssertionError("the lease is lost")

    record, computed = stage.run(too_slow)
    assert record.attempt == "u1"
    assert computed


def test_two_that_compute_at_once_agree_on_one_result(stage):
    """A holder that never looks at its lease is overtaken, and still gets the common record."""

    def blind(_lease):
        stage.clock.sleep(10)
        stage.run(owner="other")
        return {"trajectory": b"late"}

    record, computed = stage.run(blind)
    assert computed
    assert not record.won
    assert read_file(stage.store, TARGET, record, "trajectory") == b"z_0 z_1"


def test_a_commit_between_look_and_lease_is_seen(stage):
    def overtake(method, key):
        if method == "put_if_absent" and key.endswith("lease.json"):
            commit(stage.store, TARGET, "u1", {"trajectory": b"other's"})

    record, computed = stage.run(store=WrappedStore(stage.store, before=overtake))
    assert (record.attempt, computed) == ("u1", False)
    assert stage.acquire("next") is not None


def test_stops_while_it_waits(stage):
    stage.acquire("other")
    stops = iter([False, False, True])
    with pytest.raises(EditCancelledError, match="stages/d1"):
        stage.run(should_stop=lambda: next(stops))
    assert stage.leases == []


def test_a_commit_that_is_there_is_returned_also_when_told_to_stop(stage):
    stage.run()
    _, computed = stage.run(should_stop=lambda: True)
    assert not computed


def test_a_store_that_fails_while_tidying_does_not_undo_the_commit(stage):
    save_checkpoint(stage.store, TARGET, b"old", stage.acquire("dead"))

    def fail(method, _key):
        if method == "delete":
            raise StoreError("no more")

    record, computed = stage.run(store=WrappedStore(stage.store, before=fail))
    assert computed
    assert stage.store.exists(commit_key(TARGET))
    assert stage.store.exists(checkpoint_key(TARGET, 1))
    assert read_file(stage.store, TARGET, record, "trajectory") == b"z_0 z_1"


def test_eight_that_arrive_together_compute_once(store):
    started = []
    woken = threading.Event()

    def compute(lease):
        started.append(lease.owner)
        woken.wait(5)  # until another has seen that it must wait
        return {"trajectory": b"z"}

    def poll(_):
        woken.set()
        threading.Event().wait(0.01)

    def ask(index):
        return wait_or_compute(store, TARGET, f"u{index}", compute, ttl=60.0, poll=0.01, sleep=poll)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, range(8)))
    assert len(started) == 1
    assert [computed for _, computed in results].count(True) == 1
    assert len({record.attempt for record, _ in results}) == 1
