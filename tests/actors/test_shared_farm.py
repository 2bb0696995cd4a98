"""A farm that doors share by name: found, cancelled from outside, healed, filled and emptied."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray

from actors.calls import result_of
from actors.executor import RemoteExecutor
from actors.farm_session import FarmSession, join_farm, leave_farm, open_farm
from cluster.table import TABLE
from farm.errors import EditCancelledError, EditFailedError
from tests.actors.conftest import SMALL
from tests.actors.toy import Meeting, ToyHost, ToyInline, ToyRequest, echo, train_toy

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(180)]

NAME = "shared-farm-test"


@pytest.fixture(scope="module")
def shared(ray_session: None) -> Iterator[FarmSession]:
    yield join_farm(ToyHost, "toy", name=NAME, placement=SMALL)
    leave_farm(NAME)


def test_whoever_joins_by_name_asks_the_same_backbone(shared: FarmSession) -> None:
    again = join_farm(ToyHost, "toy", name=NAME, placement=SMALL)
    first = shared.executor("acme", "interactive").run_all([echo(1)])
    second = again.executor("other").run_all([echo(2)])
    assert first[0].pid == second[0].pid
    (stats,) = again.stats()
    assert {"acme", "other"} <= stats.by_tenant.keys()
    assert again.fleet_stats()["toy"].replicas.keys() == {1}
    trained = result_of(again.submit("shared-edit", train_toy, ToyRequest(3, alone=True)))
    assert np.array_equal(trained, train_toy(ToyRequest(3, alone=True), ToyInline()))


def test_a_call_is_cancelled_from_outside_while_its_step_runs(
    shared: FarmSession, tmp_path: Path
) -> None:
    meeting = Meeting.at(tmp_path / "step")
    request = ToyRequest(1, meet_at=2, meet=str(meeting.folder))
    edit = shared.submit("cancelled-edit", train_toy, request)
    meeting.await_arrival()  # its third step is being computed, and cannot end
    start = time.monotonic()
    shared.stop("cancelled-edit")
    with pytest.raises(EditCancelledError, match="cancelled-edit was cancelled"):
        result_of(edit, timeout=60)
    assert time.monotonic() - start < 30
    meeting.release()
    assert len(shared.executor().run_all([echo(1)])) == 1


def test_control_is_quick_while_a_step_runs(shared: FarmSession, tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "long")
    (replica,) = shared.route.wait()
    held = replica.handle.answer.remote([echo(1, meet=str(meeting.folder))])
    meeting.await_arrival()
    times: list[float] = []
    for _ in range(30):
        start = time.perf_counter()
        stats = ray.get(replica.handle.stats.remote())
        ray.get(replica.handle.cancel.remote("nobody"))
        times.append((time.perf_counter() - start) / 2)
        assert stats.running == 1
    assert sorted(times)[15] < 0.020  # the figure, for the median: cores are shared here
    meeting.release()
    result_of(held)


def test_one_killed_for_good_is_replaced_and_its_callers_go_on(
    shared: FarmSession, tmp_path: Path
) -> None:
    meeting = Meeting.at(tmp_path / "killed")
    (before,) = shared.route.wait()
    edit = shared.submit(
        "killed-edit", train_toy, ToyRequest(7, meet_at=10, meet=str(meeting.folder))
    )
    meeting.await_arrival()
    ray.kill(before.handle)  # for good: its own restarts are over
    meeting.await_arrival()  # step 10 again, in another backbone
    meeting.release()
    assert np.array_equal(result_of(edit), train_toy(ToyRequest(7), ToyInline()))
    (after,) = shared.route.wait()
    assert after.number != before.number


@pytest.mark.chaos
def test_a_step_that_hangs_is_asked_again_and_then_held_to_be_the_cause(tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "hangs")
    row = SMALL.model_copy(update={"step_seconds": 1.0})
    with open_farm(ToyHost, placement=row) as farm:
        first = farm.backbone_pids()
        edit = farm.submit("hung", train_toy, ToyRequest(2, meet_at=4, meet=str(meeting.folder)))
        meeting.await_arrival()  # and never released: the process is replaced
        meeting.await_arrival()
        meeting.release()  # this time it goes on
        assert np.array_equal(result_of(edit), train_toy(ToyRequest(2), ToyInline()))
        assert farm.backbone_pids() != first
        executor = farm.executor()
        with pytest.raises(EditFailedError, match="3 steps in a row hung"):
            executor.run_all([echo(1, meet=str(meeting.folder))])
        assert len(farm.executor().run_all([echo(1)])) == 1


@pytest.mark.chaos
def test_a_second_model_set_takes_the_room_of_one_that_is_idle(tmp_path: Path) -> None:
    """Each wants more than half of the machine."""
    row = TABLE.backbone_on_cpu.model_copy(update={"num_cpus": 2.2})
    name = f"{NAME}-room"
    first = join_farm(ToyHost, "first", name=name, placement=row)
    second = join_farm(partial(ToyHost), "second", name=name, placement=row)
    try:
        assert len(first.executor().run_all([echo(1)])) == 1
        # nothing is forced: the first becomes idle and gives way
        assert len(second.executor().run_all([echo(2)])) == 1
        assert first.fleet_stats()["first"].replicas == {}
        assert len(first.executor().run_all([echo(3)])) == 1  # and back again
    finally:
        leave_farm(name)


@pytest.mark.chaos
def test_long_queues_bring_a_second_replica_and_calls_spread(tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "busy")
    with open_farm(ToyHost, placement=SMALL, max_replicas=2) as farm:
        held = farm.backbones[0].answer.remote([echo(0, meet=str(meeting.folder))])
        meeting.await_arrival()
        waiting = [farm.backbones[0].answer.remote([echo(n) for n in range(16)]) for _ in range(5)]
        while len(farm.route.wait()) < 2:
            ray.wait([held], timeout=0.2)  # it cannot end: a pause that costs no CPU
        executor = RemoteExecutor([replica.handle for replica in farm.route.wait()], home=1)
        assert len(executor.run_all([echo(1)])) == 1  # the first is held, and it is not asked
        meeting.release()
        ray.get([held, *waiting])
