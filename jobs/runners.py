"""Where a job's edits run: on a farm of actors, or in this process."""

import importlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.edits import StoredEdit, open_model_set_farm
from actors.farm_session import FarmSession
from actors.flight import Flight
from actors.local import local_ray
from farm.calls import Executor
from farm.errors import FarmError
from farm.results import EditResult
from farm.runner import PreparedEdit
from farm.storage.patient import PatientStore
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from jobs.batch import OpenRunner, Watch
from jobs.dispatch import Dispatcher, Limits
from jobs.terminal import say


@dataclass(frozen=True)
class FarmRunner:
    """Runs edits as Ray tasks; see `jobs.batch.EditRunner`."""

    farm: FarmSession
    store: Store
    tenant: str

    def run(
        self, edits: Iterable[tuple[str, PreparedEdit]], *, in_flight: int, watch: Watch
    ) -> Iterator[tuple[str, EditResult | FarmError]]:
        """See `jobs.batch.EditRunner`; failures are tried again as their kind says."""
        dispatcher = Dispatcher(self.flight(), Limits(in_flight=in_flight), watch)
        for ended in dispatcher.run(edits):
            yield ended.name, ended.outcome

    def flight(self, *, budget: float | None = None) -> Flight:
        """See `jobs.batch.EditRunner`."""
        return Flight(self.farm, StoredEdit(self.store, self.tenant, budget), self.tenant)

    def describe(self) -> list[dict[str, Any]]:
        return self.farm.describe()

    def executor(self) -> Executor:
        return self.farm.executor()


def choose_runner(
    model_set: ModelSet,
    store: Store,
    tenant: str,
    *,
    inline: bool,
    beside: Sequence[ModelSet] = (),
) -> OpenRunner:
    """The runner that a command asked for; nothing is started or loaded before it is opened."""
    if inline:
        return partial(_open_inline, model_set, store, tenant)
    return partial(_open_on_farm, model_set, store, tenant, beside)


@contextmanager
def _open_on_farm(
    model_set: ModelSet, store: Store, tenant: str, beside: Sequence[ModelSet]
) -> Generator[FarmRunner, None, None]:
    say("starting the farm")
    with local_ray(), open_model_set_farm(model_set, beside=beside) as farm:
        yield FarmRunner(farm, PatientStore(store), tenant)


@contextmanager
def _open_inline(model_set: ModelSet, store: Store, tenant: str) -> Generator[Any, None, None]:
    say("loading the networks")
    # by name: it imports the networks' libraries, which a driver of the farm never needs
    with importlib.import_module("jobs.inline").open_inline(model_set, store, tenant) as runner:
        yield runner
