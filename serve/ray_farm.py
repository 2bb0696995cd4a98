"""The farm of actors, as the dispatcher runs edits on it."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from actors.calls import awaited
from actors.edits import StoredEdit, load_host, placement_beside
from actors.farm_session import FarmSession, join_farm
from actors.warming import warm_up_calls
from farm.errors import FarmError, UnavailableError
from farm.results import EditResult
from farm.runner import PreparedEdit
from farm.storage.opening import open_store
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet, open_model_set
from serve.intake import public_name
from serve.records import Priority
from serve.settings import Settings

_log = logging.getLogger("editfarm.serve")

_HEALTH_SECONDS = 3.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0

OpenSession = Callable[[], FarmSession]


class RayFarm:
    """Implements `serve.doors.EditFarm`; edits may be run before the backbones are there.

    Args:
        open_session: joins the cluster's farm, which outlives this process, or starts it.
        store: where edits lie; every machine of the farm must see it.
    """

    def __init__(self, open_session: OpenSession, store: Store) -> None:
        self._open_session, self._store = open_session, store
        self._session: FarmSession | None = None
        self._opened = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[bool] | None = None

    def start(self) -> None:
        """Start the backbones in the background, however often that takes."""
        self._opening = asyncio.create_task(self._open_for_sure())

    async def close(self) -> None:
        """Start nothing more; the backbones stay, for whoever comes next."""
        if self._opening is not None:
            self._opening.cancel()

    async def run(
        self, name: str, prepared: PreparedEdit, *, tenant: str, priority: Priority
    ) -> EditResult:
        """See `EditFarm`."""
        await self._opened.wait()
        entry = StoredEdit(self._store, tenant)
        return await awaited(
            self._live().submit(name, entry, prepared, tenant=tenant, priority=priority)
        )

    async def stop(self, name: str) -> None:
        if self._session is not None:
            self._session.stop(name)

    async def progress(self, looked_at: Collection[str] = ()) -> Mapping[str, Mapping[str, Any]]:
        if self._session is None:
            return {}
        return await asyncio.to_thread(self._session.progress, looked_at)

    async def ready(self) -> bool:
        """Whether the backbones answer; one question is under way at a time, however many ask."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _ = await asyncio.wait({self._asking}, timeout=_HEALTH_SECONDS)
        return bool(done) and self._asking.result()

    async def _ask(self) -> bool:
        if self._session is None:
            return False
        try:
            return bool(await asyncio.to_thread(self._session.backbone_pids))
        except FarmError:
            return False

    def _live(self) -> FarmSession:
        if self._session is None:
            raise UnavailableError("the backbones are not started: try again")
        return self._session

    async def _open_for_sure(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                self._session = await asyncio.to_thread(self._open_session)
            except FarmError as error:
                _log.error("the backbones cannot be started: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._opened.set()
                return


def ray_farm(settings: Settings) -> RayFarm:
    """The cluster's farm with the settings' model set."""
    models = open_model_set(settings.model_set)
    beside = [open_model_set(name) for name in settings.beside]
    return RayFarm(partial(_joined, models, beside, settings), open_store(settings.store))


def _joined(models: ModelSet, beside: Sequence[ModelSet], settings: Settings) -> FarmSession:
    """The cluster's farm, in which this model set has all of a device, or its share of one."""
    return join_farm(
        partial(load_host, models),
        _name_in_farm(models),
        replicas=settings.backbones,
        max_replicas=max(settings.backbones, settings.max_backbones),
        placement=placement_beside(models, beside),
        warm_up=warm_up_calls(models.spec),
    )


def _name_in_farm(models: ModelSet) -> str:
    """A model set's name in the farm; other weights under the same name are another's."""
    digests = json.dumps(models.digests, sort_keys=True)
    return f"{public_name(models)}-{hashlib.sha256(digests.encode()).hexdigest()[:8]}"
