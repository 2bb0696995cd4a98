import pytest

from farm.errors import StoreError
from farm.storage.local import LocalStore
from jobs import segments
from jobs.segments import LogPlace, SegmentLog, read_log
from tests.farm.storage.fakes import FakeClock, WrappedStore


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


def lines(store, place: LogPlace | None = None) -> list[bytes]:
    return [line for line, _ in read_log(store, "log/", place)]


def test_lines_come_back_in_order_over_many_segments(store, monkeypatch):
    monkeypatch.setattr(segments, "_FULL_BYTES", 50)
    log = SegmentLog(store, "log/run", every=0.0, clock=FakeClock())
    for number in range(40):
        log.add(f"line {number}".encode())
        log.flush_if_due()
    assert lines(store) == [f"line {number}".encode() for number in range(40)]
    assert len(list(store.list("log/"))) > 5


def test_a_reader_goes_on_where_it_stopped(store):
    clock = FakeClock()
    log = SegmentLog(store, "log/run", every=5.0, clock=clock)
    log.add(b"one")
    log.flush_if_due()
    ((_, place),) = read_log(store, "log/")
    log.add(b"two")
    log.flush_if_due()
    assert lines(store, place) == [], "not due yet"
    clock.sleep(5.0)
    log.flush_if_due()
    assert lines(store, place) == [b"two"]
    assert lines(store) == [b"one", b"two"]


def test_a_later_run_comes_after_an_earlier_one(store):
    for run in ("20260102", "20260101"):
        log = SegmentLog(store, f"log/{run}")
        log.add(run.encode())
        log.flush()
    assert lines(store) == [b"20260101", b"20260102"]


def test_a_store_that_fails_loses_nothing(store):
    down = True

    def fail(method, key):
        if down:
            raise StoreError("down")

    clock = FakeClock()
    log = SegmentLog(WrappedStore(store, before=fail), "log/run", every=1.0, clock=clock)
    log.add(b"one")
    log.flush_if_due()
    log.add(b"two")
    with pytest.raises(StoreError):
        log.flush()
    down = False
    clock.sleep(1.0)
    log.flush_if_due()
    assert lines(store) == [b"one", b"two"]
