"""Sizes of batches: probed against a simulated memory; costs as lines; padded sizes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.anticipation import Anticipation
from actors.caps import Cap, CudaGauge, padded_size
from actors.costs import Cost


class Memory:
    """A device with so much room, of which an item takes so much and a batch something more."""

    def __init__(self, room: int, item: int, batch: int = 0) -> None:
        self._room, self.item, self.batch = room, item, batch
        self.items = 0
        self.given_back = 0

    def start(self) -> None:
        self.items = 0

    def compute(self, items: int) -> None:
        if self.item * items + self.batch > self._room:
            raise MemoryError
        self.items = items

    def used(self) -> int:
        return self.item * self.items + self.batch

    def room(self) -> int:
        return self._room

    def ran_out(self) -> None:
        self.given_back += 1


def probe(memory: Memory, largest: int, batches: int = 12) -> tuple[Cap, list[int]]:
    """Endless calls; the sizes that were tried."""
    cap = Cap(largest, memory)
    tried: list[int] = []
    for _ in range(batches):
        size = cap.size
        tried.append(size)
        cap.start()
        try:
            memory.compute(size)
        except MemoryError:
            cap.ran_out(size)
            continue
        cap.fitted(size)
    return cap, tried


def test_a_cap_grows_from_one_while_memory_allows() -> None:
    cap, tried = probe(Memory(room=1000, item=100), largest=64)
    assert tried[:5] == [1, 2, 4, 8, 8]  # 9 of 10 fit the nine tenths, and 8 fill a captured step
    assert cap.size == 8
    roomy, tried = probe(Memory(room=10**9, item=100), largest=16)
    assert tried[:6] == [1, 2, 4, 8, 16, 16]
    assert roomy.size == 16


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(0, 1000), st.integers(1, 256))
def test_probing_never_runs_out_where_items_are_equal(
    room: int, item: int, batch: int, largest: int
) -> None:
    """What a batch takes beside its items makes an item look dearer: the safe side."""
    if item + batch > room:
        return
    memory = Memory(room, item, batch)
    cap, _ = probe(memory, largest, 20)
    assert memory.given_back == 0
    assert 1 <= cap.size <= largest


def test_what_was_too_much_is_never_tried_again() -> None:
    memory = Memory(room=1000, item=1)
    cap, _ = probe(memory, 64)
    assert cap.size == 64
    memory.item = 100  # others came onto the device
    _, tried = probe_again(cap, memory)
    assert tried[:3] == [64, 32, 16]
    assert set(tried[3:]) == {8}
    memory.item = 1
    _, tried = probe_again(cap, memory)
    assert set(tried) == {8}


def probe_again(cap: Cap, memory: Memory) -> tuple[Cap, list[int]]:
    tried: list[int] = []
    for _ in range(6):
        tried.append(cap.size)
        cap.start()
        try:
            memory.compute(cap.size)
            cap.fitted(cap.size)
        except MemoryError:
            cap.ran_out(cap.size)
    return cap, tried


def segment(total: int, allocated: int, *, device: int = 0, pool: int = 0) -> dict[str, object]:
    return {
        "device": device,
        "total_size": total,
        "allocated_size": allocated,
        "segment_pool_id": (0, pool),
    }


def test_room_is_neither_what_captured_steps_keep_nor_what_caches_will_fill(monkeypatch) -> None:
    """A card of 24 with 4 free; 8 are reserved by us, 3 of them by graphs, the rest by others."""
    segments = [segment(5, 2), segment(3, 1, pool=7), segment(90, 0, device=1)]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4, 24))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 8)
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    shares: list[tuple[float, object]] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *asked: shares.append(asked)
    )
    gauge = CudaGauge("cuda:0")
    assert gauge.room() == 4 + (5 - 2)
    gauge.leave(lambda: 2)
    assert gauge.room() == 5
    for device in ("cuda:0", "cuda"):
        assert CudaGauge(device, 0.25).room() == 6 - (8 - 3)
    assert shares == [(0.25, 0), (0.25, 0)], "CUDA takes a number here, and no bare device"


def test_a_small_batch_says_nothing_about_a_larger_one() -> None:
    cap = Cap(64, Memory(room=1000, item=1))
    for items in (1, 1, 1, 2, 1, 2):
        cap.start()
        cap.fitted(items)
    assert cap.size == 4  # 1, then 2 of 2 twice, no further by batches below the cap


def test_without_a_gauge_the_largest_is_tried_at_once() -> None:
    cap = Cap(16, None)
    assert cap.size == 16
    cap.ran_out(16)
    cap.fitted(8)
    assert cap.size == 8
    cap.ran_out(1)
    assert cap.size == 1


def test_padded_sizes_are_powers_of_two_within_the_cap() -> None:
    assert [padded_size(n, 16) for n in (1, 2, 3, 4, 5, 8, 9, 16)] == [1, 2, 4, 4, 8, 8, 16, 16]
    assert [padded_size(n, 12) for n in (5, 8, 9, 12)] == [8, 8, 12, 12]
    assert padded_size(3, 3) == 3


@given(st.floats(0.001, 1), st.floats(0.001, 1), st.lists(st.integers(1, 16), min_size=4))
def test_a_cost_is_the_line_through_what_was_seen(
    base: float, slope: float, sizes: list[int]
) -> None:
    cost = Cost()
    for size in (*sizes, 1, 16):
        cost.seen(size, base + slope * size)
    for size in (1, 5, 16):
        assert cost.of(size) == pytest.approx(base + slope * size, rel=1e-3)
    assert cost.fixed == pytest.approx(base, rel=1e-3, abs=1e-3 * (base + slope))


def test_a_cost_of_one_known_size_is_proportional() -> None:
    cost = Cost()
    assert cost.of(4) is None
    assert cost.fixed == 0
    cost.seen(4, 2.0)
    assert (cost.of(4), cost.of(8), cost.of(1), cost.fixed) == (2.0, 4.0, 0.5, 0.0)


def test_waits_are_as_long_as_the_gaps_and_end_when_they_are_in_vain() -> None:
    waits = Anticipation(0.010)
    assert waits.patience(0.0) == 0  # nobody was answered
    for step in range(20):
        waits.answered(float(step))
        waits.arrived(step + 0.002)
    waits.answered(30.0)
    assert waits.patience(30.0) == pytest.approx(0.008, rel=0.05)  # three gaps and a bit
    assert waits.patience(30.004) == pytest.approx(0.004, rel=0.1)
    assert waits.patience(30.1) == 0
    for step in range(3):
        waits.answered(40.0 + step)
        waits.missed()
    waits.answered(50.0)
    assert waits.patience(50.0) == 0  # three in vain: it does not come back soon
    waits.arrived(50.001)
    waits.answered(51.0)
    assert waits.patience(51.0) > 0  # it does after all


def test_nobody_waits_where_waiting_is_off() -> None:
    waits = Anticipation(0.0)
    waits.answered(1.0)
    assert waits.patience(1.0) == 0


def test_a_cap_is_a_size_to_which_captured_steps_are_filled_up() -> None:
    """Room for 22 rows: a batch of 20 would be computed as one of 32."""
    cap, tried = probe(Memory(room=24, item=1), largest=64)
    assert cap.size == 16
    assert set(tried) <= {1, 2, 4, 8, 16}
    cap.ran_out(20)
    assert cap.size == 8
