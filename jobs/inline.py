"""Edits in this process, one by one: no Ray, the exact reference.

Importing this imports the networks' libraries (4 s).
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.calls import Executor
from farm.errors import FarmError
from farm.progress import Progress
from farm.results import EditResult
from farm.runner import PreparedEdit, run_edit
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.batch import Watch


class InlineRunner:
    """Runs each edit to its end before it takes the next."""

    def __init__(self, host: OperationHost, store: Store, tenant: str) -> None:
        self._host, self._store, self._tenant = host, store, tenant

    def run(
        self, edits: Iterable[tuple[str, PreparedEdit]], *, in_flight: int, watch: Watch
    ) -> Iterator[tuple[str, EditResult | FarmError]]:
        """See `jobs.batch.EditRunner`; one edit is in flight, whatever is asked."""
        del in_flight
        for name, prepared in edits:
            yield name, self._run_one(name, prepared, watch)

    def describe(self) -> list[dict[str, Any]]:
        return [self._host.describe()]

    def executor(self) -> Executor:
        return self._host

    def _run_one(self, name: str, prepared: PreparedEdit, watch: Watch) -> EditResult | FarmError:
        def report(progress: Progress) -> None:
            step = {"stage": progress.stage, "step": progress.step, "total": progress.total}
            watch({name: {**step, "loss": progress.loss}})

        try:
            return run_edit(prepared, self._store, self._host, tenant=self._tenant, report=report)
        except FarmError as error:
            return error


@contextmanager
def open_inline(
    model_set: ModelSet, store: Store, tenant: str
) -> Generator[InlineRunner, None, None]:
    """The model set's networks in this process.

    Raises:
        ModelSetError: they differ from their digests, or cannot be loaded.
    """
    model_set.verify()
    disable_progress_bar()  # our own view shows progress
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = load_networks(model_set.folder, model_set.spec, device)
    yield InlineRunner(OperationHost(networks), store, tenant)
