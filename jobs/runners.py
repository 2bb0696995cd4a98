"""Where a job's edits run: on a farm of actors, or in this process."""

import importlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from actors.edits import StoredEdit, open_model_set_farm
from actors.farm_session import FarmSession
from actors.flight import Flight
from actors.local import gpu_count, local_ray, most_backbones
from farm.calls import Executor
from farm.errors import FarmError, InvalidRequestError
from farm.results import EditResult
from farm.runner import PreparedEdit
from farm.runner.running import SILENT_SECONDS
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

    def flight(
        self, *, budget: float | None = None, hang_seconds: float = SILENT_SECONDS
    ) -> Flight:
        """See `jobs.batch.EditRunner`."""
        entry = StoredEdit(self.store, self.tenant, budget, hang_seconds)
        return Flight(self.farm, entry, self.tenant)

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
    backbones: int = 1,
    max_backbones: int | None = None,
) -> OpenRunner:
    """The runner that a command asked for; nothing is started or loaded before it is opened.

    Args:
        model_set: whose networks.
        store: where edits are kept.
        tenant: whose they are.
        inline: in this process, without Ray.
        beside: model sets of other doors on the same GPUs.
        backbones: of the farm that are always there.
        max_backbones: how many there may be while queues are long; None: one for each GPU that Ray
            has when the farm is opened.
    """
    if inline:
        return partial(_open_inline, model_set, store, tenant)
    most = None if max_backbones is None else max(backbones, max_backbones)
    return partial(_open_on_farm, model_set, store, tenant, beside, backbones, most)


@contextmanager
def _open_on_farm(
    model_set: ModelSet,
    store: Store,
    tenant: str,
    beside: Sequence[ModelSet],
    backbones: int,
    max_backbones: int | None,
) -> Generator[FarmRunner, None, None]:
    say("starting the farm")
    with local_ray() as is_own:
        most = max(backbones, gpu_count()) if max_backbones is None else max_backbones
        if is_own:
            most = _fitting(backbones, max_backbones, most)
        with open_model_set_farm(
            model_set, replicas=backbones, max_replicas=most, beside=beside
        ) as farm:
            yield FarmRunner(farm, PatientStore(store), tenant)


def _fitting(backbones: int, asked: int | None, most: int) -> int:
    """How many backbones there may be where no other machine will come.

    Raises:
        InvalidRequestError: more were asked for: they, or every edit, would wait for ever.
    """
    room = most_backbones()
    if max(backbones, asked or 0) > room:
        found = ray.cluster_resources()
        has = f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"
        raise InvalidRequestError(
            f"{max(backbones, asked or 0)} backbones do not fit on this machine, which has {has} "
            f"and needs a bit of a CPU for edits too: ask for {room} at most"
        )
    return min(most, room)


@contextmanager
def _open_inline(model_set: ModelSet, store: Store, tenant: str) -> Generator[Any, None, None]:
    say("loading the networks")
    # by name: it imports the networks' libraries, which a driver of the farm never needs
    with importlib.import_module("jobs.inline").open_inline(model_set, store, tenant) as runner:
        yield runner
