"""What every method owes a run whose backbone is lost half-way."""

import pytest

from farm.errors import BackboneLostError
from farm.runner import load_output, run_edit
from tests.inline import LostAfter

MANY = 10_000


def check_it_goes_on(edit, host, store, other_store, monkeypatch) -> None:
    """The second try does the rest alone, and gives the bits of an undisturbed run.

    Args:
        edit: whose edit.
        host: answers all calls.
        store: an empty one, of the interrupted run.
        other_store: an empty one, of the undisturbed run.
        monkeypatch: lets every step leave a checkpoint.
    """
    monkeypatch.setattr("farm.runner.running._CHECKPOINT_SECONDS", 0.0)
    counting = LostAfter(host, MANY)
    expected = load_output(other_store, run_edit(edit, other_store, counting), "edited.png")
    calls = MANY - counting.left
    with pytest.raises(BackboneLostError):
        run_edit(edit, store, LostAfter(host, calls // 2))
    resumed = LostAfter(host, MANY)
    assert load_output(store, run_edit(edit, store, resumed), "edited.png") == expected
    assert MANY - resumed.left < calls  # it did not begin anew
