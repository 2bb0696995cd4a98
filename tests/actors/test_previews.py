"""Pictures of an edit on its way: seldom, small, and never a reason to fail."""

import io
import itertools

import pytest
import torch
from PIL import Image

from actors.board import ProgressBoard, Wishes
from actors.previews import Previews, small_jpeg
from actors.progress import message_of
from farm.errors import BackboneLostError
from farm.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def step(preview=None) -> Progress:
    return Progress("invert", 1, 50, preview=preview)


def test_a_picture_takes_no_more_than_a_twentieth_of_the_time() -> None:
    clock = Clock()
    previews = Previews(clock)
    asked: list[float] = []

    def slow() -> torch.Tensor:
        asked.append(clock.now)
        clock.now += 0.5
        return torch.zeros(3, 8, 8)

    while clock.now < 200.0:
        previews.take(step(slow))
        clock.now += 0.125  # the step itself
    pauses = {after - before for before, after in itertools.pairwise(asked)}
    assert pauses == {10.5}  # after half a second, ten for the edit


def test_a_quick_picture_comes_once_a_second() -> None:
    clock = Clock()
    previews = Previews(clock)
    found = []
    for _ in range(40):
        found.append(previews.take(step(lambda: torch.zeros(3, 8, 8))))
        clock.now += 0.125
    assert sum(picture is not None for picture in found) == 5


def test_a_picture_that_cannot_be_had_is_left_out() -> None:
    def lost() -> torch.Tensor:
        raise BackboneLostError("gone")

    assert Previews(Clock()).take(step(lost)) is None
    assert Previews(Clock()).take(step(lambda: torch.full((3, 8, 8), float("nan")))) is None
    assert Previews(Clock()).take(step()) is None


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(24, 20, (20, 24)), (1024, 512, (128, 256)), (3, 4000, (256, 1))],
)
def test_pictures_are_small(height: int, width: int, size: tuple[int, int]) -> None:
    noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    data = small_jpeg(noise)
    assert len(data) <= 48 * 1024
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.size) == ("JPEG", size)


def test_even_noise_is_bounded() -> None:
    noise = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0)).round()
    assert len(small_jpeg(noise)) <= 64 * 1024


def test_the_board_wishes_for_pictures_of_what_is_looked_at_and_for_a_while() -> None:
    clock = Clock()
    board = ProgressBoard(clock)
    assert board.push("a", message_of(step())) == Wishes(stop=False, preview=False)
    assert "preview" not in board.snapshot(("a",))["a"]
    assert board.push("a", None).preview
    board.push("a", None, b"picture")
    board.push("b", message_of(step()), b"another")
    found = board.snapshot(("a",))
    assert found["a"]["preview"] == b"picture"
    assert "preview" not in found["b"]
    assert "preview" not in board.snapshot()["a"]  # sent to those alone who look
    clock.now += 10.0
    assert not board.push("a", None).preview
    board.snapshot()
    assert "preview" not in board.snapshot(("a",))["a"]  # nobody looked for long: forgotten


def test_a_forgotten_edit_shows_nothing() -> None:
    board = ProgressBoard(Clock())
    board.snapshot(("a",))
    board.push("a", message_of(step()), b"picture")
    board.forget("a")
    board.push("a", message_of(step()))
    assert "preview" not in board.snapshot(("a",))["a"]
