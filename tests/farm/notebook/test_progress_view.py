"""Bars of an edit where there is no terminal and no notebook: both are told of by stand-ins."""

import sys
import types

import pytest
from rich.console import Console

from farm.notebook import progress_view
from farm.notebook.progress_view import watching
from farm.progress import Progress

STEPS = [Progress("m.inversion", step, 4) for step in (1, 2, 3, 4)] + [Progress("m.editing", 1, 1)]


class Cell:
    """What IPython's `display` gives for a display id."""

    def __init__(self):
        self.shown = []

    def update(self, bar):
        self.shown.append(bar._repr_html_())


@pytest.fixture
def cell(monkeypatch):
    """A notebook's kernel, as its modules look to us."""
    cell = Cell()
    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    display = types.ModuleType("IPython.display")
    display.display = lambda bar, display_id: cell.update(bar) or cell
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return cell


def test_a_notebook_has_a_bar_with_the_time_left_and_nothing_at_the_end(cell, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(progress_view.time, "monotonic", lambda: float(next(clock)))
    with watching(True) as tell:
        for step in STEPS:
            tell(step)
    assert "preparing" in cell.shown[0]
    assert "inversion 2/4, 1 s left" in cell.shown[2]  # a second a look: 1 s for step 2, 2 left
    assert "editing 1/1" in cell.shown[-2]
    assert cell.shown[-1] == ""


def test_a_cell_is_redrawn_a_few_times_a_second_at_most(cell, monkeypatch):
    monkeypatch.setattr(progress_view.time, "monotonic", lambda: 7.0)
    with watching(True) as tell:
        for step in STEPS[:4]:
            tell(step)
    assert len(cell.shown) == 3  # preparing, the first step, and nothing


def test_a_terminal_has_a_bar_of_which_nothing_stays(monkeypatch, capsys):
    monkeypatch.setattr(
        progress_view, "Console", lambda **_: Console(stderr=True, force_terminal=True, width=80)
    )
    with watching(True) as tell:
        for step in STEPS:
            tell(step)
    shown = capsys.readouterr().err
    assert "editing" in shown
    assert "1/1" in shown


@pytest.mark.parametrize("watch", [True, False])
def test_elsewhere_nothing_is_shown(watch, capsys):
    with watching(watch) as tell:
        for step in STEPS:
            tell(step)
    assert capsys.readouterr() == ("", "")


def test_whoever_asks_is_told():
    told = []
    with watching(told.append) as tell:
        tell(STEPS[0])
    assert told == STEPS[:1]
