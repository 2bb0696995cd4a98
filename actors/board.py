"""The progress board: what each running edit says, and who was asked to stop.

A convenience that nothing depends on: when it is lost, edits go on unseen. It imports no torch, so
its process is small.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import ray

Message: TypeAlias = Mapping[str, Any]
"""One step of an edit: `stage`, `step`, `total`, `loss`, `detail`, `pid`."""


class ProgressBoard:
    """Latest message by edit, and the edits that shall stop."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._stopping: set[str] = set()

    def push(self, edit: str, message: Message | None) -> bool:
        """Note a message, if there is one; the answer says whether the edit shall stop."""
        if message is not None:
            self._messages[edit] = message
        return edit in self._stopping

    def snapshot(self) -> dict[str, Message]:
        """The latest message of every edit that is not forgotten."""
        return dict(self._messages)

    def stop(self, edit: str) -> None:
        """Ask an edit to stop; it sees this with its next push."""
        self._stopping.add(edit)

    def forget(self, edit: str) -> None:
        """Drop what is known of an edit that has ended."""
        self._messages.pop(edit, None)
        self._stopping.discard(edit)


# no resources here: cluster/table.py sets them by .options()
ProgressBoardActor: Any = ray.remote(ProgressBoard)
