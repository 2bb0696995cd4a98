"""A trainer's line to the board: throttled, honest about stopping, and allowed to break."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from actors.board import ProgressBoard, ProgressBoardActor
from actors.placement import board_options
from actors.progress import BoardLine, message_of
from farm.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(120)]


def step(number: int) -> Progress:
    return Progress("invert", number, 50, loss=1.0 / number, detail={"psnr": 20.0 + number})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def board() -> Iterator[Any]:
    actor = ProgressBoardActor.options(**board_options()).remote()
    ray.get(actor.snapshot.remote())
    yield actor
    ray.kill(actor)


def settled(line: BoardLine) -> BoardLine:
    """The line once its push is answered."""
    if line._reply is not None:
        ray.wait([line._reply])
    return line


def test_the_board_keeps_the_latest_message_until_it_is_forgotten() -> None:
    board = ProgressBoard()
    assert board.push("a", message_of(step(1))) == (False, False)
    board.push("a", message_of(step(2)))
    board.push("b", None)
    assert {edit: m["step"] for edit, m in board.snapshot().items()} == {"a": 2}
    board.stop("b")
    assert (board.push("a", None).stop, board.push("b", None).stop) == (False, True)
    board.forget("a")
    board.forget("b")
    assert board.snapshot() == {}
    assert board.push("b", None).stop is False


def test_a_message_holds_the_figures_and_no_checkpoint() -> None:
    class State:
        def to_tensors(self) -> dict[str, Any]:
            raise AssertionError("a checkpoint must stay where it is")

    progress = Progress("invert", 3, 50, 0.5, {"psnr": 23.0}, checkpoint=State())
    message = dict(message_of(progress))
    assert message.pop("pid") > 0
    assert message == {
        "stage": "invert",
        "step": 3,
        "total": 50,
        "loss": 0.5,
        "detail": {"psnr": 23.0},
        "node": "",
    }


def test_steps_in_quick_succession_are_one_push_and_the_last_one_counts(board: Any) -> None:
    clock = Clock()
    line = BoardLine(board, "edit", clock=clock)
    for number in range(1, 11):
        settled(line).report(step(number))
    assert ray.get(board.snapshot.remote())["edit"]["step"] == 1  # only the first was due
    clock.now += 0.21
    settled(line).report(step(11))
    assert ray.get(board.snapshot.remote())["edit"]["step"] == 11
    settled(line).report(step(12))
    line.close()  # what is unsent is sent at the end
    assert ray.get(board.snapshot.remote())["edit"]["step"] == 12


def test_a_wish_to_stop_arrives_with_the_next_reply(board: Any) -> None:
    clock = Clock()
    line = BoardLine(board, "edit", clock=clock)
    line.report(step(1))
    assert settled(line).should_stop() is False
    ray.get(board.stop.remote("edit"))
    clock.now += 1.0
    line.should_stop()  # asks, though there is nothing to tell
    assert settled(line).should_stop() is True
    assert line.should_stop() is True


def test_one_push_is_under_way_at_a_time() -> None:
    """A board that never answers is asked once, however long it takes."""
    clock = Clock()
    board = NeverAnswers()
    line = BoardLine(board, "edit", clock=clock)
    for number in range(1, 6):
        line.report(step(number))
        assert line.should_stop() is False
        clock.now += 1.0
    assert board.asked == 1


def test_a_lost_board_breaks_nothing(board: Any) -> None:
    clock = Clock()
    line = BoardLine(board, "edit", clock=clock)
    ray.kill(board)
    for number in range(1, 4):
        settled(line).report(step(number))
        assert settled(line).should_stop() is False
        clock.now += 1.0
    line.close()


class NeverAnswers:
    """Stands for a board: its pushes wait for a task that needs more than there is."""

    def __init__(self) -> None:
        self.asked = 0
        self.push = self

    def remote(self, *_: Any) -> Any:
        self.asked += 1
        return impossible.remote()


@ray.remote(num_cpus=64)
def impossible() -> None: ...
