from farm.storage.checkpoints import clear_checkpoints, load_checkpoint, save_checkpoint
from farm.storage.layout import checkpoint_key
from farm.storage.leases import acquire
from tests.farm.storage.fakes import FakeClock, WrappedStore

TARGET = "tenants/acme/stages/d1"


def take_over(store, clock, owner):
    clock.sleep(100)
    return acquire(store, TARGET, owner, ttl=10.0, clock=clock)


def test_the_last_one_saved_is_loaded(store):
    lease = take_over(store, FakeClock(), "anna")
    assert load_checkpoint(store, TARGET) is None
    save_checkpoint(store, TARGET, b"step 1", lease)
    save_checkpoint(store, TARGET, b"step 2", lease)
    assert load_checkpoint(store, TARGET) == b"step 2"


def test_a_holder_that_lost_its_lease_overwrites_nothing(store):
    clock = FakeClock()
    late = take_over(store, clock, "anna")
    save_checkpoint(store, TARGET, b"anna 1", late)
    lease = take_over(store, clock, "berta")
    assert load_checkpoint(store, TARGET) == b"anna 1"
    save_checkpoint(store, TARGET, b"berta 2", lease)
    save_checkpoint(store, TARGET, b"anna 3", late)
    assert load_checkpoint(store, TARGET) == b"berta 2"


def test_a_damaged_checkpoint_is_passed_over(store):
    clock = FakeClock()
    save_checkpoint(store, TARGET, b"whole", take_over(store, clock, "anna"))
    save_checkpoint(store, TARGET, b"damaged", take_over(store, clock, "berta"))
    key = checkpoint_key(TARGET, 2)
    for damaged in (store.get(key)[:-1], store.get(key)[:-1] + b"x", b""):
        store.put(key, damaged)
        assert load_checkpoint(store, TARGET) == b"whole"
    store.delete(checkpoint_key(TARGET, 1))
    assert load_checkpoint(store, TARGET) is None


def test_cleared_ones_are_gone_also_while_they_are_read(store):
    clock = FakeClock()
    save_checkpoint(store, TARGET, b"1", take_over(store, clock, "anna"))
    save_checkpoint(store, TARGET, b"2", take_over(store, clock, "berta"))

    def clear(method, _key):
        if method == "get":
            clear_checkpoints(store, TARGET)

    assert load_checkpoint(WrappedStore(store, before=clear), TARGET) is None
    assert list(store.list(TARGET + "/checkpoints")) == []
