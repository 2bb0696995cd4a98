import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from farm.errors import CorruptArtifactError, StoreError
from farm.storage.layout import lease_key
from farm.storage.leases import LeaseLostError, acquire, renewing
from farm.storage.store import Version
from tests.farm.storage.fakes import FakeClock, LosesReplies, RefusesOwnSuccess, WrappedStore

TARGET = "tenants/acme/stages/d1"


@pytest.fixture
def clock():
    return FakeClock()


def test_one_holds_until_released(store, clock):
    lease = acquire(store, TARGET, "anna", ttl=10.0, clock=clock)
    assert (lease.owner, lease.epoch, lease.expires_at) == ("anna", 1, clock.now + 10)
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is None
    lease.release()
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock).epoch == 2


def test_an_expired_lease_is_taken_over(store, clock):
    late = acquire(store, TARGET, "anna", ttl=10.0, clock=clock)
    clock.sleep(9.9)
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is None
    clock.sleep(0.1)
    lease = acquire(store, TARGET, "berta", ttl=10.0, clock=clock)
    assert lease.epoch == 2
    with pytest.raises(LeaseLostError, match=r"'anna' \(epoch 1\) is lost"):
        late.renew()
    late.release()  # takes nothing from berta
    assert acquire(store, TARGET, "anna", ttl=10.0, clock=clock) is None
    lease.renew()


def test_another_run_of_a_task_takes_over_at_once(store, clock):
    dead = acquire(store, TARGET, "anna/1", ttl=10.0, clock=clock)
    for stranger in ("berta/1", "anna", "ann/1"):
        assert acquire(store, TARGET, stranger, ttl=10.0, clock=clock, inherits=True) is None
    assert acquire(store, TARGET, "anna/2", ttl=10.0, clock=clock) is None
    lease = acquire(store, TARGET, "anna/2", ttl=10.0, clock=clock, inherits=True)
    assert lease.epoch == 2
    with pytest.raises(LeaseLostError, match=r"'anna/1' \(epoch 1\) is lost"):
        dead.renew()
    lease.renew()


def test_who_renews_keeps_it(store, clock):
    lease = acquire(store, TARGET, "anna", ttl=10.0, clock=clock)
    for _ in range(5):
        clock.sleep(8)
        lease.renew()
        assert lease.expires_at == clock.now + 10
        assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is None
    assert lease.epoch == 1


def test_an_expired_lease_that_nobody_took_can_be_renewed(store, clock):
    lease = acquire(store, TARGET, "anna", ttl=10.0, clock=clock)
    clock.sleep(30)
    lease.renew()
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is None


def test_renewal_is_due_after_a_third(store, clock):
    lease = acquire(store, TARGET, "anna", ttl=9.0, clock=clock)
    first = lease.expires_at
    clock.sleep(2.9)
    lease.renew_if_due()
    assert lease.expires_at == first
    clock.sleep(0.2)
    lease.renew_if_due()
    assert lease.expires_at == clock.now + 9


def test_a_released_lease_stays_released(store, clock):
    lease = acquire(store, TARGET, "anna", ttl=10.0, clock=clock)
    lease.release()
    lease.release()
    with pytest.raises(LeaseLostError):
        lease.renew()
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is not None


@pytest.mark.parametrize("expired", [False, True], ids=["free", "expired"])
def test_one_of_eight_gets_it(store, clock, expired):
    if expired:
        acquire(store, TARGET, "zoe", ttl=10.0, clock=clock)
        clock.sleep(10)
    barrier = Barrier(8)

    def ask(index):
        barrier.wait()
        return acquire(store, TARGET, f"u{index}", ttl=10.0, clock=clock)

    with ThreadPoolExecutor(8) as pool:
        (lease,) = [lease for lease in pool.map(ask, range(8)) if lease is not None]
    assert lease.epoch == 1 + expired
    lease.renew()


@pytest.mark.parametrize("expired", [False, True], ids=["free", "expired"])
def test_a_lost_reply_to_taking_it_is_recognised(store, clock, expired):
    if expired:
        acquire(store, TARGET, "zoe", ttl=10.0, clock=clock)
        clock.sleep(10)
    lease = acquire(RefusesOwnSuccess(store, "lease.json"), TARGET, "anna", ttl=10.0, clock=clock)
    assert lease.owner == "anna"
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock) is None


def test_a_renewal_whose_reply_was_lost_is_not_a_loss(store, clock):
    lease = acquire(
        LosesReplies(store, "put_if_match", "lease.json"), TARGET, "anna", ttl=10.0, clock=clock
    )
    clock.sleep(5)
    with pytest.raises(StoreError, match="connection reset"):
        lease.renew()  # it was written, so our version is out of date
    clock.sleep(1)
    lease.renew()
    assert lease.expires_at == clock.now + 10
    lease.release()
    assert acquire(store, TARGET, "berta", ttl=10.0, clock=clock).epoch == 2


def test_a_renewal_that_is_always_refused_is_a_loss_in_the_end(store, clock):
    """As by a server whose versions never match what it says they are."""

    class NeverMatches(WrappedStore):
        def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
            del key, data, version

    lease = acquire(NeverMatches(store), TARGET, "anna", ttl=10.0, clock=clock)
    with pytest.raises(LeaseLostError, match="renew more often"):
        lease.renew()


def test_what_is_no_lease_is_said_to_be_none(store, clock):
    store.put(lease_key(TARGET), b"{}")
    with pytest.raises(CorruptArtifactError, match=r"lease\.json.* is no lease"):
        acquire(store, TARGET, "anna", ttl=10.0, clock=clock)


def wait_until(holds) -> None:
    """Returns when it holds; fails after five seconds."""
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def num_threads() -> int:
    return sum(thread.name == "lease" for thread in threading.enumerate())


class Renewals(WrappedStore):
    """Notes when the lease was renewed; fails at it while told to."""

    def __init__(self, store) -> None:
        super().__init__(store)
        self.times: list[float] = []
        self.fails = False

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        self.times.append(time.monotonic())
        if self.fails:
            raise StoreError("away")
        return super().put_if_match(key, data, version)


def test_a_lease_is_kept_during_a_step_that_takes_longer(store):
    counting = Renewals(store)
    lease = acquire(counting, TARGET, "anna", ttl=0.3)
    with renewing(lease, lambda: True) as renewal:
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            assert acquire(store, TARGET, "berta", ttl=0.3) is None
            time.sleep(0.02)
        renewal.check()
    assert num_threads() == 0
    assert len(counting.times) <= 9, "no more often than in a third of its time"
    lease.release()
    assert acquire(store, TARGET, "berta", ttl=0.3) is not None


def test_who_hangs_loses_its_lease_and_learns_of_it_when_it_goes_on(store):
    alive = False
    lease = acquire(store, TARGET, "anna", ttl=0.15)
    with renewing(lease, lambda: alive) as renewal:
        time.sleep(0.2)
        other = acquire(store, TARGET, "berta", ttl=60.0)
        assert other is not None
        assert not renewal.is_lost
        alive = True
        wait_until(lambda: renewal.is_lost)
        with pytest.raises(LeaseLostError):
            renewal.check()
        wait_until(lambda: num_threads() == 0)  # nothing is left to renew
    other.renew()


def test_renewals_outlive_an_outage(store):
    counting = Renewals(store)
    counting.fails = True
    lease = acquire(counting, TARGET, "anna", ttl=0.15)
    with renewing(lease, lambda: True) as renewal:
        wait_until(lambda: len(counting.times) >= 2)
        renewal.check()
        counting.fails, first = False, lease.expires_at
        wait_until(lambda: lease.expires_at > first)


def test_what_is_no_lease_any_more_ends_its_holder(store):
    lease = acquire(store, TARGET, "anna", ttl=0.15)
    store.put(lease_key(TARGET), b"{}")
    with renewing(lease, lambda: True) as renewal:
        wait_until(lambda: renewal.is_lost)
        with pytest.raises(CorruptArtifactError):
            renewal.check()


def test_no_thread_is_left_when_the_holder_fails(store):
    lease = acquire(store, TARGET, "anna", ttl=30.0)
    with pytest.raises(KeyboardInterrupt), renewing(lease, lambda: True):
        raise KeyboardInterrupt
    assert num_threads() == 0
