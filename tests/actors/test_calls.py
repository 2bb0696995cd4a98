"""Ray's errors end here: each error of the farm crosses processes as itself."""

import asyncio
import os
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.calls import map_bounded, result_of, results_of
from farm import errors
from farm.errors import (
    BackboneLostError,
    EditCancelledError,
    EditFailedError,
    FarmError,
    UnavailableError,
)
from tests.actors.toy import Meeting, arrive_and_wait

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(120)]

ALL_ERRORS = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, FarmError)
)


@ray.remote(num_cpus=0, max_retries=0)
def double(value: int) -> int:
    return 2 * value


@ray.remote(num_cpus=0, max_retries=0)
def fail(name: str) -> None:
    raise getattr(errors, name)(f"{name}: found 3, expected 4")


@ray.remote(num_cpus=0, max_retries=0)
def fail_further_down(name: str) -> None:
    result_of(fail.remote(name))


@ray.remote(num_cpus=0, max_retries=0)
def stumble() -> None:
    raise KeyError("nobody thought of this")


@ray.remote(num_cpus=0, max_retries=0)
def crash() -> None:
    os._exit(1)


@ray.remote(num_cpus=0, max_retries=0)
def wait_at(folder: Any) -> None:
    arrive_and_wait(folder)


@ray.remote(num_cpus=0)
class Closed:
    """A gate that never opens."""

    async def wait(self) -> None:
        await asyncio.Event().wait()


@ray.remote(num_cpus=0, max_retries=0)
def wait_for_ever(gate: Any) -> None:
    ray.get(gate.wait.remote())


@ray.remote(num_cpus=0)
class Broken:
    def __init__(self) -> None:
        raise errors.ModelSetError("weights are missing")

    def ping(self) -> None: ...


@ray.remote(num_cpus=0)
class Mortal:
    def die(self) -> None:
        os._exit(1)


@pytest.mark.parametrize("name", ALL_ERRORS)
def test_every_error_comes_out_as_itself(name: str) -> None:
    with pytest.raises(FarmError) as caught:
        result_of(fail.remote(name))
    expected = getattr(errors, name)
    assert type(caught.value) is expected
    assert caught.value.message == f"{name}: found 3, expected 4"
    assert (caught.value.exit_code, caught.value.http_status, caught.value.retryable) == (
        expected.exit_code,
        expected.http_status,
        expected.retryable,
    )
    assert isinstance(caught.value.__cause__, RayTaskError)


def test_an_error_comes_out_as_itself_through_two_processes() -> None:
    with pytest.raises(FarmError) as caught:
        result_of(fail_further_down.remote("EditDivergedError"))
    assert type(caught.value) is errors.EditDivergedError


def test_what_nobody_foresaw_becomes_a_failed_edit_with_its_traceback() -> None:
    with pytest.raises(EditFailedError, match="KeyError: 'nobody thought of this'") as caught:
        result_of(stumble.remote())
    assert "stumble" in str(caught.value.__cause__)


def test_a_process_that_died_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="WorkerCrashedError"):
        result_of(crash.remote())


def test_an_actor_that_died_is_a_lost_backbone() -> None:
    with pytest.raises(BackboneLostError) as caught:
        result_of(Mortal.remote().die.remote())
    assert isinstance(caught.value.__cause__, RayActorError)


def test_an_actor_that_could_not_be_made_says_why() -> None:
    with pytest.raises(errors.ModelSetError, match="weights are missing"):
        result_of(Broken.remote().ping.remote())


def test_a_late_answer_is_unavailable_and_its_call_is_cancelled() -> None:
    late = wait_for_ever.remote(Closed.remote())
    with pytest.raises(UnavailableError, match=r"within 0\.1 s"):
        results_of([double.remote(1), late], timeout=0.1)
    with pytest.raises(EditCancelledError):
        result_of(late)


def test_results_keep_their_order() -> None:
    assert results_of([double.remote(value) for value in range(5)]) == [0, 2, 4, 6, 8]


def test_map_yields_every_item_with_its_outcome() -> None:
    pairs = dict(map_bounded(double.remote, range(7), in_flight=3))
    assert pairs == {value: 2 * value for value in range(7)}


def test_map_of_nothing_is_nothing() -> None:
    assert list(map_bounded(double.remote, [], in_flight=3)) == []


def test_an_item_that_fails_is_an_outcome_and_not_the_end() -> None:
    def submit(name: str) -> "ray.ObjectRef[Any]":
        return double.remote(1) if name == "well" else fail.remote(name)

    names = ["QueueFullError", "well", "InvalidPromptError"]
    outcomes = dict(map_bounded(submit, names, in_flight=2))
    assert outcomes["well"] == 2
    assert type(outcomes["QueueFullError"]) is errors.QueueFullError
    assert type(outcomes["InvalidPromptError"]) is errors.InvalidPromptError


def test_what_finishes_first_comes_first_and_no_more_than_allowed_runs(tmp_path: Any) -> None:
    slow = Meeting.at(tmp_path / "slow")
    drawn: list[str] = []

    def items() -> Any:
        for item in ("slow", "a", "b", "c"):
            drawn.append(item)
            yield item

    def submit(item: str) -> "ray.ObjectRef[Any]":
        return wait_at.remote(slow.folder) if item == "slow" else double.remote(1)

    mapped = map_bounded(submit, items(), in_flight=2)
    assert next(mapped)[0] == "a"
    assert drawn == ["slow", "a"]
    assert next(mapped)[0] == "b"
    assert drawn == ["slow", "a", "b"]
    slow.await_arrival()
    slow.release()
    assert {item for item, _ in mapped} == {"slow", "c"}


def test_a_caller_that_stops_early_cancels_what_runs() -> None:
    gate = Closed.remote()
    refs: list[Any] = []

    def submit(item: int) -> "ray.ObjectRef[Any]":
        refs.append(double.remote(1) if item == 0 else wait_for_ever.remote(gate))
        return refs[-1]

    mapped = map_bounded(submit, [0, 1], in_flight=2)
    assert next(mapped) == (0, 2)
    mapped.close()
    with pytest.raises(EditCancelledError):
        result_of(refs[1])


def test_whoever_waits_may_do_something_meanwhile(tmp_path: Any) -> None:
    meeting = Meeting.at(tmp_path / "idle")
    turns: list[int] = []

    def idle() -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            meeting.await_arrival()
            meeting.release()

    mapped = map_bounded(lambda _: wait_at.remote(meeting.folder), [0], in_flight=1, idle=idle)
    assert list(mapped) == [(0, None)]  # it could not end had `idle` not been called
    assert turns


def test_room_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="in_flight is 0"):
        next(map_bounded(double.remote, [1], in_flight=0))
