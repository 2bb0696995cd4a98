"""Edits of one model set on a farm: what its backbones load, and what its trainers run."""

import importlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import ray

from actors.backbone import Host
from actors.board import Message
from actors.farm_session import FarmSession, open_farm
from actors.local import accelerator
from actors.logs import logged_edit
from actors.metrics import count_edit, measured
from actors.sharing import accelerator_memories, loaded_bytes, shared_placement
from cluster.table import BackbonePlacement
from farm.calls import Executor
from farm.errors import FarmError
from farm.results import EditResult
from farm.runner import PreparedEdit, Report, ShouldStop, run_edit
from farm.runner.running import SILENT_SECONDS
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet


@dataclass(frozen=True)
class StoredEdit:
    """What a trainer runs: one prepared edit, from the store into the store. It pickles."""

    store: Store
    tenant: str
    budget: float | None = None
    """Accelerator seconds that one edit may cost."""
    silent_seconds: float = SILENT_SECONDS
    """See `farm.runner.run_edit`."""

    def __call__(
        self,
        request: PreparedEdit,
        executor: Executor,
        report_progress: Report,
        should_stop: ShouldStop,
    ) -> EditResult:
        """See `farm.runner.run_edit`."""
        method = request.request.method
        task = ray.get_runtime_context() if ray.is_initialized() else None
        with logged_edit(request.edit_id, self.tenant):
            try:
                result = run_edit(
                    request,
                    measured(self.store),
                    executor,
                    tenant=self.tenant,
                    report=report_progress,
                    should_stop=should_stop,
                    budget=self.budget,
                    silent_seconds=self.silent_seconds,
                    node="" if task is None else task.get_node_id(),
                    task="" if task is None else task.get_task_id() or "",
                )
            except FarmError as error:
                count_edit(method, error)
                raise
            count_edit(method, result)
            return result


def load_host(model_set: ModelSet, device: str) -> Host:
    """The model set's networks, loaded in the process that calls this.

    Raises:
        ModelSetError: they differ from their digests, which results name, or cannot be loaded.
    """
    # by name: drivers and trainers import this file and never need the networks' libraries
    return importlib.import_module("farm.inline").load_host(model_set, device)


@contextmanager
def open_model_set_farm(
    model_set: ModelSet,
    *,
    replicas: int = 1,
    max_replicas: int | None = None,
    beside: Sequence[ModelSet] = (),
) -> Generator[FarmSession, None, None]:
    """A farm whose backbones hold this model set.

    Args:
        model_set: whose networks.
        replicas: number of backbones that are always there.
        max_replicas: how many there may be while queues are long; no more than `replicas` if None.
        beside: model sets of other doors on the same GPUs; see `placement_beside`.

    Raises:
        FarmError: see `actors.farm_session.open_farm`.
    """
    placement = placement_beside(model_set, beside)
    host = partial(load_host, model_set)
    with open_farm(host, replicas=replicas, max_replicas=max_replicas, placement=placement) as farm:
        yield farm


def placement_beside(model_set: ModelSet, beside: Sequence[ModelSet]) -> BackbonePlacement | None:
    """What a backbone takes where others need the same GPUs; None: the table's row as it is.

    Raises:
        UnavailableError: there is no room for it beside the others.
    """
    device = accelerator()
    if not beside or device == "cpu":
        return None
    weights = {one.name: loaded_bytes(one, device) for one in (model_set, *beside)}
    return shared_placement(model_set.name, weights, accelerator_memories())


def run_edits(
    farm: FarmSession,
    edits: Iterable[tuple[str, PreparedEdit]],
    store: Store,
    *,
    tenant: str,
    in_flight: int,
    report: Callable[[Mapping[str, Message]], None] | None = None,
) -> Iterator[tuple[str, EditResult | FarmError]]:
    """Run named edits, bounded in flight; each comes out with its outcome as it finishes.

    Args:
        farm: that holds the edits' model set.
        edits: what to run, by names that are unique among those that run; drawn as room is free.
        store: the only truth; every machine of the farm must see it.
        tenant: whose store.
        in_flight: how many run at once.
        report: told what runs and how far it is, about twice a second.
    """
    entry = StoredEdit(store, tenant)
    for name, _, outcome in farm.run_many(
        edits,
        entry,
        in_flight=in_flight,
        tenant=tenant,
        priority_of=lambda edit: edit.request.priority,
        report=report,
    ):
        yield name, outcome
