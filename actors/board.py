"""The progress board: what each running edit says, and who was asked to stop.

A convenience that nothing depends on: when it is lost, edits go on unseen. It imports no torch, so
its process is small.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

import ray

Message: TypeAlias = Mapping[str, Any]
"""One step of an edit: `stage`, `step`, `total`, `loss`, `detail`, `pid`, `node`.

Of those that are looked at also `preview`, the latest picture as JPEG, once there is one."""

_LOOK_SECONDS = 10.0
"""For how long a look counts: whoever goes on looking looks again before."""


class Wishes(NamedTuple):
    """What is wished of an edit.

    Attributes:
        stop: that it ends.
        preview: that it shows pictures of itself.
    """

    stop: bool = False
    preview: bool = False


class ProgressBoard:
    """Latest message by edit, the edits that shall stop, and those that are looked at.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._messages: dict[str, Message] = {}
        self._previews: dict[str, bytes] = {}
        self._looked_at: dict[str, float] = {}
        self._stopping: set[str] = set()

    def push(self, edit: str, message: Message | None, preview: bytes | None = None) -> Wishes:
        """Note a message and a picture, if there are any; the answer says what is wished."""
        if message is not None:
            self._messages[edit] = message
        if preview is not None:
            self._previews[edit] = preview
        wanted = self._looked_at.get(edit, float("-inf")) > self._clock()
        return Wishes(edit in self._stopping, wanted)

    def snapshot(self, looked_at: Collection[str] = ()) -> dict[str, Message]:
        """The latest message of every edit that is not forgotten.

        Args:
            looked_at: edits whose pictures are wanted, now and for a while.
        """
        now = self._clock()
        self._looked_at = {edit: end for edit, end in self._looked_at.items() if end > now}
        self._looked_at |= dict.fromkeys(looked_at, now + _LOOK_SECONDS)
        self._previews = {e: p for e, p in self._previews.items() if e in self._looked_at}
        found = dict(self._messages)
        for edit in self._messages.keys() & self._previews.keys() & set(looked_at):
            found[edit] = {**found[edit], "preview": self._previews[edit]}
        return found

    def stop(self, edit: str) -> None:
        """Ask an edit to stop; it sees this with its next push."""
        self._stopping.add(edit)

    def forget(self, edit: str) -> None:
        """Drop what is known of an edit that has ended."""
        self._messages.pop(edit, None)
        self._previews.pop(edit, None)
        self._stopping.discard(edit)


# no resources here: cluster/table.py sets them by .options()
ProgressBoardActor: Any = ray.remote(ProgressBoard)
