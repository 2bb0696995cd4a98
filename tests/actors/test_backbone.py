"""A farm with a toy backbone in a process of its own: equal results, whatever happens to it."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.backbone import Backbone
from actors.calls import result_of, results_of
from actors.executor import RemoteExecutor
from actors.farm_session import FarmSession, open_farm
from farm import errors
from farm.calls import Executor, Meter
from farm.errors import BackboneLostError, ModelSetError, QueueFullError, UnavailableError
from tests.actors.conftest import SMALL
from tests.actors.toy import (
    WIDTH,
    Meeting,
    ToyHost,
    ToyInline,
    ToyRequest,
    broken_host,
    echo,
    train_toy,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(180)]


def train_together(
    farm: FarmSession, requests: Sequence[ToyRequest], folder: Path
) -> list[np.ndarray]:
    """Train in concurrent tasks; the backbone is held until all their first calls wait."""
    meeting = Meeting.at(folder)
    held = farm.backbones[0].answer.remote([echo(0, meet=str(folder))])
    meeting.await_arrival()
    refs = [farm.submit(f"toy-{r.seed}-{r.alone}", train_toy, r) for r in requests]
    while farm.stats()[0].waiting < len(requests):
        ray.wait([held], timeout=0.05)  # it cannot end: a pause that costs no CPU
    meeting.release()
    result_of(held)
    return results_of(refs)


def test_four_trainers_in_one_batch_end_where_each_ends_inline(
    toy_farm: FarmSession, tmp_path: Path
) -> None:
    requests = [ToyRequest(seed) for seed in range(4)]
    expected = [train_toy(request, ToyInline()) for request in requests]
    before = toy_farm.stats()[0]
    found = train_together(toy_farm, requests, tmp_path / "meeting")
    after = toy_farm.stats()[0]
    items, batches = after.items - before.items, after.batches - before.batches
    assert items == 1 + 4 * 20
    assert batches < items  # the first four calls shared one batch at the least
    for x, reference in zip(found, expected, strict=True):
        # 20 steps of Adam amplify a rounding of 1e-7; definitions.md allows 1e-5
        np.testing.assert_allclose(x, reference, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(x, train_toy(ToyRequest(0, steps=0), ToyInline()))


def test_computed_alone_they_are_equal_to_the_bit(toy_farm: FarmSession, tmp_path: Path) -> None:
    requests = [ToyRequest(seed, alone=True) for seed in range(4)]
    found = train_together(toy_farm, requests, tmp_path / "meeting")
    for x, request in zip(found, requests, strict=True):
        assert np.array_equal(x, train_toy(request, ToyInline()))


def test_a_backbone_killed_in_mid_call_changes_nothing(tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "half-way")
    request = ToyRequest(7, meet_at=10, meet=str(meeting.folder))
    with open_farm(ToyHost, placement=SMALL) as farm:
        first_pid = farm.backbone_pids()
        trainer = farm.submit("toy", train_toy, request)
        meeting.await_arrival()  # step 10 is being computed
        ray.kill(farm.backbones[0], no_restart=False)
        meeting.await_arrival()  # it is computed anew, in another process
        meeting.release()
        found = result_of(trainer)
        assert farm.backbone_pids() != first_pid
        assert farm.stats()[0].items == 10  # steps 10 to 19: the first ten were not asked again
        assert np.array_equal(found, train_toy(ToyRequest(7), ToyInline()))
        last = farm.backbones[0].answer.remote([echo(1, meet=str(meeting.folder))])
        meeting.await_arrival()
        ray.kill(farm.backbones[0])  # for good
        with pytest.raises(BackboneLostError):
            result_of(last)


def test_control_answers_while_a_step_runs(toy_farm: FarmSession, tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "step")
    backbone = toy_farm.backbones[0]
    step = backbone.answer.remote([echo(1, meet=str(meeting.folder))])
    meeting.await_arrival()  # the step has begun and cannot end before it is released
    waiting = backbone.answer.remote([echo(2)])  # not before: calls may overtake each other
    assert toy_farm.backbone_pids() == [toy_farm.describe()[0]["pid"]]
    assert toy_farm.stats()[0].waiting in (0, 1)
    assert ray.wait([step, waiting], num_returns=2, timeout=0) == ([], [step, waiting])
    meeting.release()
    ((first,), (second,)) = results_of([step, waiting])
    assert (first.arrays["value"], second.arrays["value"]) == (1, 2)


def test_a_description_names_the_process_and_its_networks(toy_farm: FarmSession) -> None:
    (description,) = toy_farm.describe()
    assert description["parameters"] == {"toy": WIDTH * WIDTH}
    assert description["device"] == "cpu"
    assert description["pid"] == toy_farm.backbone_pids()[0] != os.getpid()


def test_the_executor_is_one_and_can_be_metered(toy_farm: FarmSession) -> None:
    executor = toy_farm.executor()
    assert isinstance(executor, Executor)
    meter = Meter(executor)
    answers = meter.run_all([echo(value) for value in range(40)])
    assert [float(a.arrays["value"]) for a in answers] == list(range(40))
    assert (meter.calls, meter.work) == (40, {"toy": 40})


@pytest.mark.parametrize("name", ["EditDivergedError", "InvalidPromptError", "StoreError"])
def test_an_operations_error_reaches_the_caller_as_itself(toy_farm: FarmSession, name: str) -> None:
    call = echo(1, error=name)
    with pytest.raises(errors.FarmError, match="told to") as caught:
        toy_farm.executor().run_all([echo(1), type(call)("toy.fail", call.arrays, call.static)])
    assert type(caught.value) is getattr(errors, name)


def test_an_unknown_operation_fails_the_call_and_not_the_backbone(toy_farm: FarmSession) -> None:
    call = echo(1)
    with pytest.raises(errors.EditFailedError, match=r"ZeroDivisionError: no toy\.nothing"):
        toy_farm.executor().run_all([type(call)("toy.nothing", call.arrays)])
    assert len(toy_farm.executor().run_all([echo(1)])) == 1


def test_an_answer_that_never_comes_is_not_awaited_for_ever(
    toy_farm: FarmSession, tmp_path: Path
) -> None:
    meeting = Meeting.at(tmp_path / "stuck")
    executor = RemoteExecutor(toy_farm.backbones, timeout=0.2)
    with pytest.raises(UnavailableError, match=r"no answer within 0\.2"):
        executor.run_all([echo(1, meet=str(meeting.folder))])
    meeting.await_arrival()
    meeting.release()
    assert len(toy_farm.executor().run_all([echo(2)])) == 1


def test_networks_that_cannot_be_loaded_are_named_at_once() -> None:
    with (
        pytest.raises(ModelSetError, match="the weights of toy are missing"),
        open_farm(broken_host, placement=SMALL),
    ):
        pytest.fail("a farm without networks was opened")


def test_a_warm_up_that_fails_is_an_error_of_the_start() -> None:
    fail = type(echo(1))("toy.fail", {}, {"error": "EditDivergedError"})
    with pytest.raises(errors.EditDivergedError):
        Backbone(ToyHost, "cpu", warm_up=[echo(1), fail])


def test_no_room_for_a_backbone_is_said_in_time() -> None:
    crowded = SMALL.model_copy(update={"num_cpus": 64.0})
    with (
        pytest.raises(UnavailableError, match=r"within 0\.5 s"),
        open_farm(ToyHost, placement=crowded, timeout=0.5),
    ):
        pytest.fail("a farm without room was opened")


@pytest.mark.parametrize(("wish", "found"), [("!here", True), ("here", False)])
def test_a_backbone_starts_where_its_labels_allow(wish: str, found: bool) -> None:
    """No node of this Ray has the label, which a wish may forbid or demand."""
    row = SMALL.model_copy(update={"labels": {"farm/pool": wish}})
    if not found:
        with pytest.raises(UnavailableError), open_farm(ToyHost, placement=row, timeout=0.5):
            pytest.fail("a backbone started on a node without its label")
        return
    with open_farm(ToyHost, placement=row) as farm:
        assert len(farm.executor().run_all([echo(1)])) == 1


class FakeBackbone:
    """Stands for a handle: answers from a list of rounds, and records what it was asked."""

    def __init__(self, *rounds: Any) -> None:
        self.rounds = list(rounds)
        self.asked: list[int] = []
        self.answer = self

    def remote(self, calls: Sequence[Any], _sender: Any = None) -> Any:
        self.asked.append(len(calls))
        answer = self.rounds.pop(0) if self.rounds else None
        return ray.put(answer or ToyHost("cpu").run_batch(calls))


def test_a_full_queue_is_asked_again_for_what_it_refused() -> None:
    first = ToyHost("cpu").run_batch([echo(0)])[0]
    backbone = FakeBackbone([first, QueueFullError("full")], [QueueFullError("full")])
    pauses: list[float] = []
    answers = RemoteExecutor([backbone], pause=pauses.append).run_all([echo(0), echo(1)])
    assert [float(a.arrays["value"]) for a in answers] == [0, 1]
    assert backbone.asked == [2, 1, 1]
    assert pauses == [0.05, 0.1]


def test_a_queue_that_stays_full_is_an_error_in_the_end() -> None:
    backbone = FakeBackbone([QueueFullError("full")])
    with pytest.raises(QueueFullError):
        RemoteExecutor([backbone], timeout=0.01, pause=lambda _: None).run_all([echo(0)])


def test_coroutines_that_ask_together_send_one_message() -> None:
    """A full queue's refusals are asked again, each in its caller's own time."""
    first = ToyHost("cpu").run_batch([echo(0)])[0]
    backbone = FakeBackbone([first, QueueFullError("full"), QueueFullError("full")])
    executor = RemoteExecutor([backbone])

    async def ask_all() -> list[Any]:
        return await asyncio.gather(*[executor.answers([echo(value)]) for value in range(3)])

    answers = asyncio.run(ask_all())
    assert [float(one.arrays["value"]) for (one,) in answers] == [0, 1, 2]
    assert backbone.asked[0] == 3
    assert sum(backbone.asked) == 5


def test_a_coroutine_waits_no_longer_than_it_may(toy_farm: FarmSession, tmp_path: Path) -> None:
    meeting = Meeting.at(tmp_path / "meeting")
    hasty = RemoteExecutor(toy_farm.backbones, timeout=0.5)
    with pytest.raises(UnavailableError, match=r"within 0\.5 s"):
        asyncio.run(hasty.answers([echo(0, meet=str(meeting.folder))]))
    meeting.release()
    (answer,) = toy_farm.executor().run_all([echo(1)])
    assert answer.arrays["value"] == 1


def test_chunks_go_home_unless_another_has_much_less_to_do() -> None:
    replicas = [FakeBackbone() for _ in range(2)]
    executor = RemoteExecutor(replicas, home=5, chunk=4)
    answers = executor.run_all([echo(value) for value in range(40)])
    assert [float(a.arrays["value"]) for a in answers] == list(range(40))
    first, home = (sum(r.asked) for r in replicas)
    assert first + home == 40
    assert first < home <= first + 8 + 4  # home by no more than it is worth, and one chunk
    executor.run_all([echo(1)])
    assert replicas[1].asked[-1] == 1  # nothing outstanding: home again
    with pytest.raises(ValueError, match="no backbone"):
        RemoteExecutor([])
