"""A trainer's line to the progress board: throttled, never waited for, allowed to break."""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

import ray

from actors.board import Message, Wishes
from actors.calls import Ref, result_of
from actors.previews import Previews
from farm.errors import FarmError
from farm.progress import Progress

_INTERVAL = 0.2  # seconds between two pushes of one trainer
_LAST_WAIT = 1.0  # seconds


def message_of(progress: Progress, node: str = "") -> Message:
    """What of a step goes to the board: figures and whereabouts, and never the checkpoint."""
    return {
        "stage": progress.stage,
        "step": progress.step,
        "total": progress.total,
        "loss": progress.loss,
        "detail": dict(progress.detail),
        "pid": os.getpid(),
        "node": node,
    }


class BoardLine:
    """Tells the board of an edit's progress and learns from the reply what is wished.

    One push is under way at a time, so a slow board slows nobody and is not flooded. Whether to
    stop is as old as the last reply: at most one interval while the board is well.

    Args:
        board: handle of a `ProgressBoardActor`.
        edit: name of the edit on the board.
        interval: seconds between two pushes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        board: Any,
        edit: str,
        *,
        interval: float = _INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board, self._edit = board, edit
        self._interval, self._clock = interval, clock
        self._unsent: Message | None = None
        self._reply: Ref[Wishes] | None = None
        self._next_push = clock()
        self._wishes = Wishes()
        self._previews = Previews(clock)
        self._picture: bytes | None = None
        self._node: str = ray.get_runtime_context().get_node_id()

    def report(self, progress: Progress) -> None:
        """Tell of a step, soon: a later one may take its place."""
        self._unsent = message_of(progress, self._node)
        if self._wishes.preview:  # between two steps, where nothing else is under way
            self._picture = self._previews.take(progress) or self._picture
        self._exchange()

    def should_stop(self) -> bool:
        """Whether somebody asked this edit to stop."""
        self._exchange()
        return self._wishes.stop

    def close(self) -> None:
        """Send what is unsent; wait a moment, so that nothing arrives after the edit's outcome."""
        if self._unsent is not None:
            self._push()
        if self._reply is not None:
            ray.wait([self._reply], timeout=_LAST_WAIT)

    def _exchange(self) -> None:
        if self._reply is not None:
            ready, _ = ray.wait([self._reply], timeout=0)
            if not ready:
                return
            self._read(self._reply)
        if self._clock() >= self._next_push:
            self._push()

    def _read(self, reply: Ref[Wishes]) -> None:
        self._reply = None
        with contextlib.suppress(FarmError):  # board lost or restarting: the edit goes on unseen
            told = result_of(reply)
            self._wishes = Wishes(self._wishes.stop or told.stop, told.preview)

    def _push(self) -> None:
        self._reply = self._board.push.remote(self._edit, self._unsent, self._picture)
        self._unsent = self._picture = None
        self._next_push = self._clock() + self._interval
