import io

import pytest
from rich.console import Console

from farm.errors import UnknownWordError
from jobs import live
from jobs.batch import running_name
from jobs.live import live_view
from jobs.outcomes import failed_edit
from tests.jobs.outcome_examples import done_edit


def message(step: int, stage: str = "style_diffusion.inversion"):
    return {"stage": stage, "step": step, "total": 359, "loss": 0.5}


def shown(monkeypatch, *, terminal: bool) -> str:
    monkeypatch.setattr(live, "_LINE_SECONDS", 0.0)
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=100, highlight=False)
    failure = failed_edit(3, "[bold]x", UnknownWordError("no [word]"), request=None)
    with live_view(console, total=3) as view:
        view.running({running_name(1, "line-1"): message(10), "2:b": message(44)})
        view.finished(done_edit(line=1))
        view.finished(done_edit(line=2, reused=True))
        view.finished(failure)
    return buffer.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_each_outcome_is_a_line_wherever_it_is_shown(monkeypatch, terminal):
    text = shown(monkeypatch, terminal=terminal)
    assert "done line-1: 11.0 s" in text
    assert "done line-2: was in the store" in text
    assert "failed [bold]x: no [word] (UnknownWordError)" in text


def test_lines_count_and_sum_up_what_runs(monkeypatch):
    text = shown(monkeypatch, terminal=False)
    assert "running: 2 in inversion, step 10 to 44 of 359" in text
    assert "[3/3] failed" in text
    assert "\x1b" not in text


def test_bars_show_each_running_edit_until_it_is_finished(monkeypatch):
    text = shown(monkeypatch, terminal=True)
    assert "inversion 44/359, loss 0.5" in text
    assert "2 done, 1 failed, 1 running" in text
