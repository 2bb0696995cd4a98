"""Edits in this process, one by one: no Ray, the exact reference.

Importing this imports the networks' libraries (4 s).
"""

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from farm.backbones.host import OperationHost
from farm.calls import Executor
from farm.errors import EditCancelledError, FarmError, unforeseen
from farm.inline import load_host
from farm.progress import Progress
from farm.results import EditResult
from farm.runner import PreparedEdit, run_edit
from farm.runner.running import SILENT_SECONDS
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.batch import Messages, Watch
from jobs.dispatch import Dispatcher, Limits

logger = logging.getLogger(__name__)


class InlineRunner:
    """Runs each edit to its end before it takes the next."""

    def __init__(self, host: OperationHost, store: Store, tenant: str) -> None:
        self._host, self._store, self._tenant = host, store, tenant

    def run(
        self, edits: Iterable[tuple[str, PreparedEdit]], *, in_flight: int, watch: Watch
    ) -> Iterator[tuple[str, EditResult | FarmError]]:
        """See `jobs.batch.EditRunner`; one edit is in flight, whatever is asked."""
        flight = self.flight()
        limits = Limits(in_flight=1)
        del in_flight
        dispatcher = Dispatcher(flight, limits, watch)
        for ended in dispatcher.run(edits):
            yield ended.name, ended.outcome

    def flight(
        self, *, budget: float | None = None, hang_seconds: float = SILENT_SECONDS
    ) -> "InlineFlight":
        """See `jobs.batch.EditRunner`; who hangs here hangs with everything."""
        del hang_seconds
        return InlineFlight(self, budget)

    def describe(self) -> list[dict[str, Any]]:
        return [self._host.describe()]

    def executor(self) -> Executor:
        return self._host

    def run_one(
        self, name: str, prepared: PreparedEdit, budget: float | None, watch: Watch
    ) -> EditResult | FarmError:
        """One edit to its end."""

        def report(progress: Progress) -> None:
            step = {"stage": progress.stage, "step": progress.step, "total": progress.total}
            watch({name: {**step, "loss": progress.loss, "detail": dict(progress.detail)}})

        try:
            return run_edit(
                prepared,
                self._store,
                self._host,
                tenant=self._tenant,
                report=report,
                budget=budget,
            )
        except FarmError as error:
            return error
        except Exception as error:  # the edits after it are not to suffer
            logger.exception("%s failed", name)
            return unforeseen(error)


class InlineFlight:
    """One edit at a time: it runs while somebody waits for it; see `jobs.dispatch.Flight`."""

    places = 1

    def __init__(self, runner: InlineRunner, budget: float | None) -> None:
        self._runner, self._budget = runner, budget
        self._next: list[tuple[str, PreparedEdit]] = []
        self._stopped: list[str] = []
        self._messages: Messages = {}
        self._watch: Watch = lambda _: None

    def listen(self, watch: Watch) -> None:
        self._watch = watch

    def start(self, name: str, request: PreparedEdit) -> None:
        self._next.append((name, request))

    def finished(self, timeout: float) -> list[tuple[str, EditResult | FarmError]]:
        """Runs the oldest that was started to its end, whatever the time."""
        del timeout
        stopped, self._stopped = self._stopped, []
        if stopped or not self._next:
            return [(name, EditCancelledError("stopped before its start")) for name in stopped]
        name, prepared = self._next.pop(0)
        outcome = self._runner.run_one(name, prepared, self._budget, self._note)
        self._messages = {}
        return [(name, outcome)]

    def messages(self) -> Messages:
        return self._messages

    def is_placed(self, name: str) -> bool:
        del name
        return True

    def stop(self, name: str, *, force: bool) -> None:
        """An edit that has not begun is let go; one that runs is run to its end."""
        del force
        self._stopped += [waiting for waiting, _ in self._next if waiting == name]
        self._next = [one for one in self._next if one[0] != name]

    def is_healthy(self) -> bool:
        return True

    def restart_backbones(self) -> None:
        """There is nothing to restart: the networks are in this process."""

    def load(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._next.clear()

    def _note(self, messages: Messages) -> None:
        self._messages = messages
        self._watch(messages)


@contextmanager
def open_inline(
    model_set: ModelSet, store: Store, tenant: str
) -> Generator[InlineRunner, None, None]:
    """The model set's networks in this process.

    Raises:
        ModelSetError: they differ from their digests, or cannot be loaded.
    """
    yield InlineRunner(load_host(model_set), store, tenant)
