"""Waiting where edits are drawn and outcomes kept: there the loop of a job stands still meanwhile.

The loop (`jobs.dispatch`) waits by itself for backbones, and for the store that edits fail for.
Pictures are read, and true pictures kept, inside of a step of it; so whoever waits there does what
the loop would do: tells that the job is alive and how far running edits are, and hears a wish.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from farm.errors import EditCancelledError, StoreError

_T = TypeVar("_T")
_PAUSE = 1.0  # seconds; what is asked waits some seconds too (`farm.storage.patient`)


@dataclass
class Patience:
    """How long a store that does not answer is waited for.

    Attributes:
        seconds: after which its error is raised.
        meanwhile: called before each further try; whether to go on waiting.
        note: told when waiting begins and ends, as `jobs.dispatch.Dispatcher.note` is.
        sleep: waits so many seconds.
        clock: seconds, monotonic.
        gave_up: whether `meanwhile` ended a wait.
    """

    seconds: float = 0.0
    meanwhile: Callable[[], bool] = lambda: True
    note: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _about: None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    gave_up: bool = False

    def again(self, name: str, ask: Callable[[], _T]) -> _T:
        """What is asked, as soon as the store answers.

        Args:
            name: of the edit, for the note.
            ask: may be called often.

        Raises:
            StoreError: the store did not answer for so long, or will not.
            EditCancelledError: `meanwhile` said so.
        """
        since, is_waiting = self.clock(), False
        while True:
            try:
                found = ask()
            except StoreError as error:
                if not error.retryable or self.clock() - since >= self.seconds:
                    raise
                if not is_waiting:
                    is_waiting = True
                    self.note("waiting", {"edit": name, "error": error.message})
                if not self.meanwhile():
                    self.gave_up = True
                    raise EditCancelledError(f"stopped while {error.message}") from error
            else:
                if is_waiting:
                    self.note("recovered", {"seconds": self.clock() - since})
                return found
            self.sleep(_PAUSE)
