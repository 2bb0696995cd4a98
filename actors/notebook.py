"""A Ray cluster as a place where `farm.edit` computes.

from actors.notebook import RayFarm
from farm import edit

with RayFarm(store="s3://bucket/edits", address="auto") as cluster:
    result = edit("photo.png", source="a red ball", target="a blue ball", farm=cluster)
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

from actors.board import Message
from actors.edits import load_host, run_edits
from actors.farm_session import FarmSession, open_farm
from actors.local import local_ray
from cluster.table import BackbonePlacement
from farm.errors import FarmError, InvalidRequestError, UnavailableError
from farm.notebook import Finished, Task
from farm.notebook.places import TENANT
from farm.progress import Progress
from farm.runner import Report
from farm.storage.opening import open_store
from farm.storage.patient import PatientStore
from farm.storage.store import check_writable
from farm.zoo.model_sets import open_model_set


class RayFarm:
    """A farm of one model set, for the time of a `with`; see `farm.notebook.Place`.

    Several threads may edit at once: they share the backbones' batches.

    Args:
        store: that every machine of the cluster sees.
        model_set: whose networks the backbones hold.
        address: of a Ray cluster; by default the one that RAY_ADDRESS names, else a Ray of this
            machine that ends with the farm.
        replicas: number of backbones.
        placement: instead of the table's row for what Ray has.
    """

    def __init__(
        self,
        store: str | Path = "out/store",
        *,
        model_set: str = "scenes",
        address: str | None = None,
        replicas: int = 1,
        placement: BackbonePlacement | None = None,
    ) -> None:
        self._store = open_store(str(store))
        self._model_set = open_model_set(model_set)
        self._address, self._replicas, self._placement = address, replicas, placement
        self._open = ExitStack()
        self._session: FarmSession | None = None

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            StoreError: the store cannot be written.
            FarmError: the backbones do not come up.
        """
        check_writable(self._store)
        with ExitStack() as stack:
            stack.enter_context(local_ray(address=self._address))
            build = partial(load_host, self._model_set)
            farm = open_farm(build, replicas=self._replicas, placement=self._placement)
            self._session = stack.enter_context(farm)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        self._open.close()

    def run(self, task: Task, report: Report) -> Finished:
        """See `farm.notebook.Place`.

        Raises:
            FarmError: what became of it otherwise.
        """
        if self._session is None:
            raise UnavailableError("this Ray farm is not open: edit inside its `with`")
        own = self._model_set.name
        asked = task.fields.get("model_set", own)
        if asked != own:
            raise InvalidRequestError(f"model_set {asked!r} is not on this farm: {own!r} is")
        prepared = replace(task, fields={**task.fields, "model_set": own}).prepare(self._model_set)
        name = f"{prepared.edit_id}-{time.monotonic_ns()}"

        def watch(messages: Mapping[str, Message]) -> None:
            found = messages.get(name)
            if found is not None:
                report(Progress(found["stage"], found["step"], found["total"], found["loss"]))

        store = PatientStore(self._store)
        ended = run_edits(
            self._session, [(name, prepared)], store, tenant=TENANT, in_flight=1, report=watch
        )
        for _, outcome in ended:
            if isinstance(outcome, FarmError):
                raise outcome
            return Finished.of(store, outcome)
        raise UnavailableError("the farm ended without an outcome for this edit: try again")
