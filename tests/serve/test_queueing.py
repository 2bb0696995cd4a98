"""Who starts next, and who is let in at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.admission import Admission
from serve.limits import TenantLimits
from serve.queueing import FairQueue, Waiting

FREE = TenantLimits(edits_per_minute=None, max_queued=None)


def drain(queue, may_start=lambda _: True):
    found = []
    while (waiting := queue.pop(may_start)) is not None:
        found.append((waiting.tenant, waiting.id))
    return found


def filled(*entries):
    queue = FairQueue()
    for tenant, name, priority in entries:
        queue.push(Waiting(tenant, name, priority))
    return queue


def test_first_come_first_served_within_a_tenant():
    queue = filled(*(("a", f"e{n}", "interactive") for n in range(5)))
    assert [name for _, name in drain(queue)] == ["e0", "e1", "e2", "e3", "e4"]


def test_a_tenant_with_many_edits_does_not_delay_one_with_few():
    queue = filled(*(("a", f"e{n}", "interactive") for n in range(100)), ("b", "x", "interactive"))
    assert ("b", "x") in drain(queue)[:2]


def test_interactive_goes_first_and_batch_still_moves():
    queue = filled(
        *(("a", f"b{n}", "batch") for n in range(20)),
        *(("a", f"i{n}", "interactive") for n in range(20)),
    )
    order = [name for _, name in drain(queue)]
    assert order[:10] == ["i0", "i1", "i2", "i3", "b0", "i4", "i5", "i6", "i7", "b1"]


def test_who_may_not_start_keeps_its_turn():
    queue = filled(("a", "e0", "interactive"), ("b", "e1", "interactive"))
    assert drain(queue, lambda tenant: tenant == "b") == [("b", "e1")]
    assert drain(queue) == [("a", "e0")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 9).map(str),
            st.sampled_from(["interactive", "batch"]),
        ),
        max_size=40,
    ),
    st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 9).map(str))),
)
def test_everything_comes_out_that_went_in_and_was_not_removed(entries, removed):
    queue = filled(*entries)
    for tenant, name in removed:
        while queue.remove(tenant, name):
            pass
    expected = {(t, n, p) for t, n, p in entries if (t, n) not in removed}
    assert len(queue) == len(expected)
    assert queue.ids() == {(t, n) for t, n, _ in expected}
    assert sorted(drain(queue)) == sorted((t, n) for t, n, _ in expected)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def ask(admission, name="e0", limits=FREE, *, tenant="a", pixels=1, waiting=0, own=0, spare=0.0):
    waits = {"waiting": waiting, "waiting_of_tenant": own}
    return admission.admit(tenant, limits, name, pixels=pixels, spare=spare, **waits)


def test_a_rate_lets_its_number_in_at_once_and_then_one_by_one():
    clock = Clock()
    admission = Admission(1000, clock)
    limits = TenantLimits(edits_per_minute=60, max_queued=None)
    assert [ask(admission, f"e{n}", limits) for n in range(60)] == [None] * 60
    assert ask(admission, "late", limits).retry_after == 1.0  # 60 a minute are one a second
    clock.now = 1.0
    assert ask(admission, "e60", limits) is None
    assert ask(admission, "e61", limits).code == "rate_limited"
    assert ask(admission, "other", limits, tenant="b") is None


def test_pixels_have_a_rate_and_a_large_picture_is_let_in_once_a_minute():
    clock = Clock()
    admission = Admission(1000, clock)
    limits = TenantLimits(edits_per_minute=None, max_queued=None, pixels_per_minute=100)
    assert ask(admission, "e0", limits, pixels=5000) is None
    assert ask(admission, "e1", limits, pixels=50).retry_after == 30.0
    clock.now = 30.0
    assert ask(admission, "e1", limits, pixels=50) is None


def test_places_are_held_until_the_record_is_written_or_too_late():
    clock = Clock()
    admission = Admission(2, clock)
    assert ask(admission, "e0") is None
    assert ask(admission, "e1", waiting=0) is None
    assert ask(admission, "e2").code == "queue_full"
    admission.release("a", "e1")
    assert ask(admission, "e2", waiting=0) is None
    clock.now = 60.0
    assert ask(admission, "e3") is None  # both were never written


def test_a_tenants_queue_and_storage_are_bounded():
    admission = Admission(1000, Clock())
    limits = TenantLimits(edits_per_minute=None, max_queued=2, max_stored_bytes=100)
    assert ask(admission, "e0", limits, own=1) is None
    assert ask(admission, "e1", limits, own=1).code == "too_many_edits"
    admission.release("a", "e0")
    admission.stored("a", 100)
    assert ask(admission, "e1", limits).code == "storage_full"
    admission.stored("a", -1)
    assert ask(admission, "e1", limits) is None


def test_lines_of_jobs_leave_a_share_of_the_limits_to_others():
    """A job that waits for tokens is there whenever one flows in; a client is not."""
    clock = Clock()
    admission = Admission(1000, clock)
    limits = TenantLimits(edits_per_minute=60, max_queued=None)
    lines = [ask(admission, f"l{n}", limits, spare=0.25) for n in range(60)]
    assert lines.count(None) == 45
    assert lines[-1].retry_after == 1.0
    singles = [ask(admission, f"s{n}", limits) for n in range(20)]
    assert singles.count(None) == 15
    clock.now = 15.0
    assert ask(admission, "line", limits, spare=0.25).retry_after == 1.0
    assert ask(admission, "single", limits) is None


@pytest.mark.parametrize(("most", "own", "admitted"), [(8, 5, True), (8, 6, False), (1, 0, True)])
def test_lines_of_jobs_leave_places_in_the_queue(most, own, admitted):
    limits = TenantLimits(edits_per_minute=1, max_queued=most)
    refusal = ask(Admission(100), "line", limits, own=own, spare=0.25)
    assert (refusal is None) is admitted
