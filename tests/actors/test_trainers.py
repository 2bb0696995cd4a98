"""Edits as tasks: light processes, watched and stopped through the farm."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from actors.calls import result_of
from actors.farm_session import FarmSession
from actors.progress import BoardLine
from farm.calls import Call, Executor
from farm.errors import (
    EditCancelledError,
    EditFailedError,
    InvalidPromptError,
    QueueFullError,
    StoreError,
)
from farm.progress import STARTING
from tests.actors.toy import (
    ToyInline,
    ToyRequest,
    ask_once,
    echo,
    loaded_modules,
    run_until_stopped,
    train_toy,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


def fail_until_third_try(
    counter: Path, _executor: Executor, _report: Callable[..., None], _stop: Callable[[], bool]
) -> int:
    """Counts its attempts in a file; the first two find the store gone."""
    attempts = int(counter.read_text()) + 1 if counter.exists() else 1
    counter.write_text(str(attempts))
    if attempts < 3:
        raise StoreError("the store is away")
    return attempts


def refuse(
    counter: Path, _executor: Executor, _report: Callable[..., None], _stop: Callable[[], bool]
) -> None:
    counter.write_text(counter.read_text() + "x" if counter.exists() else "x")
    raise InvalidPromptError("nothing to edit")


def stop_or_end(
    _request: Any, _executor: Executor, _report: Callable[..., None], stop: Callable[[], bool]
) -> str:
    """Asks twice, with time for the reply between."""
    stop()
    line = cast("BoardLine", cast("Any", stop).__self__)
    if line._reply is not None:  # else it is read already
        ray.wait([line._reply])
    return "stopped" if stop() else "ended"


def say_nothing(
    _request: Any, _executor: Executor, _report: Callable[..., None], stop: Callable[[], bool]
) -> None:
    while not stop():
        time.sleep(0.02)
    raise EditCancelledError("as was asked")


def who_am_i(*_: Any) -> int:
    return os.getpid()


def test_a_trainer_loads_torch_and_no_library_of_networks(toy_farm: FarmSession) -> None:
    modules, threads, omp_threads = result_of(toy_farm.submit("modules", loaded_modules, None))
    assert {"torch", "farm", "actors", "ray"} <= modules
    assert not modules & {"diffusers", "transformers", "timm", "peft", "torchvision", "boto3"}
    assert threads == 1
    assert omp_threads == "1"


def test_trainers_and_backbones_are_different_processes(toy_farm: FarmSession) -> None:
    trainer = result_of(toy_farm.submit("pid", who_am_i, None))
    assert len({trainer, os.getpid(), *toy_farm.backbone_pids()}) == 3


def test_a_machine_that_failed_is_tried_again(toy_farm: FarmSession, tmp_path: Path) -> None:
    assert result_of(toy_farm.submit("again", fail_until_third_try, tmp_path / "attempts")) == 3


def test_a_wrong_request_is_not(toy_farm: FarmSession, tmp_path: Path) -> None:
    with pytest.raises(InvalidPromptError, match="nothing to edit"):
        result_of(toy_farm.submit("wrong", refuse, tmp_path / "attempts"))
    assert (tmp_path / "attempts").read_text() == "x"


def test_progress_is_seen_from_outside_and_an_edit_stops_when_asked(
    toy_farm: FarmSession,
) -> None:
    edit = toy_farm.submit("endless", run_until_stopped, None)
    while toy_farm.progress().get("endless", {}).get("stage", STARTING) == STARTING:
        ray.wait([edit], timeout=0.05)  # it cannot end: a pause that costs no CPU
    message = toy_farm.progress()["endless"]
    assert message["stage"] == "toy"
    assert message["total"] == message["step"] + 1
    assert message["pid"] not in (os.getpid(), *toy_farm.backbone_pids())
    toy_farm.stop("endless")
    with pytest.raises(EditCancelledError, match="as was asked"):
        result_of(edit, timeout=60)


def test_a_trainer_says_that_it_is_there_before_its_first_step(toy_farm: FarmSession) -> None:
    edit = toy_farm.submit("quiet", say_nothing, None)
    while "quiet" not in toy_farm.progress():
        ray.wait([edit], timeout=0.05)
    message = toy_farm.progress()["quiet"]
    assert (message["stage"], message["step"], message["total"]) == (STARTING, 0, 0)
    toy_farm.stop("quiet")
    with pytest.raises(EditCancelledError):
        result_of(edit, timeout=60)


def test_a_wish_to_stop_does_not_outlive_its_edit(toy_farm: FarmSession) -> None:
    toy_farm.stop("again-and-again")
    assert result_of(toy_farm.submit("again-and-again", stop_or_end, None)) == "ended"


def test_an_edit_survives_the_loss_of_the_board(toy_farm: FarmSession) -> None:
    lost = FarmSession(toy_farm.backbones, LostBoard(), toy_farm.device)
    request = ToyRequest(5, steps=3)
    found = result_of(lost.submit("unseen", train_toy, request))
    assert (found == train_toy(request, ToyInline())).all()
    assert lost.progress() == {}


def test_many_edits_come_out_with_their_outcomes(toy_farm: FarmSession) -> None:
    requests: dict[str, Call] = {f"edit-{value}": echo(value) for value in range(6)}
    requests["bad"] = Call("toy.fail", {}, {"error": "EditDivergedError"})
    reports: list[set[str]] = []
    outcomes = {
        name: (request, outcome)
        for name, request, outcome in toy_farm.run_many(
            requests.items(), ask_once, in_flight=3, report=lambda m: reports.append(set(m))
        )
    }
    assert set(outcomes) == set(requests)
    _, failure = outcomes.pop("bad")
    assert isinstance(failure, EditFailedError)
    assert "told to" in failure.message
    for name, (request, outcome) in outcomes.items():
        assert outcome == float(name.removeprefix("edit-"))
        assert math.isclose(float(request.arrays["value"]), outcome)
    assert any(reports)
    assert not set(requests) & set(toy_farm.progress())  # what ended is forgotten


class LostBoard:
    """Stands for the handle of a board that is gone: every call ends in an error."""

    def __getattr__(self, _: str) -> "LostBoard":
        return self

    def __reduce__(self) -> tuple[type["LostBoard"], tuple[()]]:
        return (LostBoard, ())

    def remote(self, *_: Any) -> Any:
        return gone.remote()


@ray.remote(num_cpus=0, max_retries=0)
def gone() -> None:
    raise QueueFullError("nobody is there")
