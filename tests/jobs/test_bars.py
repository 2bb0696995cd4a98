"""Bars: the time left is the rest at the speed so far; a watcher sees what a writer writes."""

import io
import threading

import pytest
from rich.console import Console

from jobs import bars
from jobs.bars import Told, bar, growing, tree_bytes


@pytest.fixture
def screen():
    return Console(file=io.StringIO(), width=120)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_now_and_then_and_say_the_time_left(screen, clock):
    with bar("training", 1000, done=200, screen=screen) as show:
        clock[0] = 10.0
        show(300, "loss 0.5")  # too soon
        clock[0] = 20.0
        show(400, "loss 0.4")
    # 200 steps in 20 s: 600 more take 60 s
    assert screen.file.getvalue() == "training: 400 of 1,000, loss 0.4, 60 s to go\n"


def test_nothing_done_yet_promises_nothing(screen, clock):
    with bar("weights", 4_000_000, "bytes", screen=screen) as show:
        clock[0] = 30.0
        show(0)
    assert screen.file.getvalue() == "weights: 0 of 4 MB\n"


@pytest.mark.parametrize(("seconds", "text"), [(119, "2 min"), (7200, "2.0 h"), (80, "80 s")])
def test_long_times_are_said_shortly(screen, clock, seconds, text):
    with bar("x", 2, screen=screen) as show:
        clock[0] = float(seconds)
        show(1)
    assert screen.file.getvalue() == f"x: 1 of 2, {text} to go\n"


def test_on_a_terminal_it_moves_and_leaves_nothing_behind():
    screen = Console(file=io.StringIO(), width=120, force_terminal=True)
    with bar("[2]", 10, screen=screen) as show:
        show(5, "half [way]")
        show(11)  # more than was thought
    shown = screen.file.getvalue()
    assert "[2]" in shown
    assert "10/10" in shown
    assert shown.endswith("\x1b[2K")  # the line is wiped


def test_a_folder_that_grows_is_seen_to_grow(tmp_path, monkeypatch):
    (tmp_path / "old").write_bytes(bytes(10))
    seen, looked = [], threading.Event()

    def show(done, note=""):
        seen.append(done)
        if done == 30:
            looked.set()

    monkeypatch.setattr(bars, "_LOOK_SECONDS", 0.001)
    monkeypatch.setattr(bars, "Lines", lambda *_: show)
    with growing("writing", tmp_path, 30):
        (tmp_path / "part").write_bytes(bytes(20))
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "more").write_bytes(bytes(10))
        assert looked.wait(10)
    assert sorted(seen) == seen
    assert tree_bytes(tmp_path) == 40
    assert tree_bytes(tmp_path / "old") == 10
    assert tree_bytes(tmp_path / "none") == 0


def test_each_whole_that_is_told_of_has_a_bar_of_its_own(monkeypatch):
    begun, shown = [], []

    def lines(title, total, *_):
        begun.append((title, total))
        return lambda now, note="": shown.append(now)

    monkeypatch.setattr(bars, "Lines", lines)
    with Told() as told:
        for what, done, total in [("a", 1, 2), ("a", 2, 2), ("b", 1, 3), ("c", 3, 3), ("c", 1, 3)]:
            told(what, done, total)
    assert begun == [("a", 2), ("b", 3), ("c", 3), ("c", 3)]
    assert shown == [1, 2, 1, 3, 1]
