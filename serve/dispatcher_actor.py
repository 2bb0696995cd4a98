# pyright: standard
"""The dispatcher as an actor of its own, and how replicas of the HTTP side ask it.

Serve keeps it alive and knows where it is; asked is the actor itself. Through a handle of Serve's a
question takes a router and a stream of answers, on one core 5 ms and more, twice for an edit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from actors.calls import unwrapped
from actors.logs import configure_logs
from serve.admission import Refusal
from serve.assembly import open_dispatcher
from serve.convoy import Convoy
from serve.dispatcher import Dispatcher
from serve.doors import Charged, EditFarm, Snapshot
from serve.problems import BusyError
from serve.records import Priority
from serve.settings import Settings

MakeFarm = Callable[[Settings], EditFarm]

_T = TypeVar("_T")
_Asked = tuple[str, str, int]
"""Arguments of `DispatcherDoor.admit`."""
_Accepted = tuple[str, str, Priority, int]
"""Those of `accept`."""

_AT_ONCE = 4096
_PATIENCE = 5.0
"""Seconds to wait for the dispatcher, which may be starting."""
_READY_PATIENCE = 6.0


class DispatcherShell:
    """`serve.dispatcher.Dispatcher` in a process of its own, which Ray starts again if it dies."""

    def __init__(self, settings: Settings, make_farm: MakeFarm) -> None:
        configure_logs()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
        logging.getLogger("editfarm.serve").setLevel(logging.INFO)
        self._settings, self._make_farm = settings, make_farm
        self._starting: asyncio.Task[Dispatcher] | None = None

    async def alive(self) -> None:
        """Raises what keeps the dispatcher from starting."""
        await self._started()

    async def admit_all(self, asked: Sequence[_Asked]) -> Sequence[Refusal | BaseException | None]:
        """`DispatcherDoor.admit` of each; an error is that one's alone."""
        dispatcher = await self._started()
        answers = (dispatcher.admit(*one) for one in asked)
        return await asyncio.gather(*answers, return_exceptions=True)

    async def accept_all(self, accepted: Sequence[_Accepted]) -> Sequence[BaseException | None]:
        """`DispatcherDoor.accept` of each; an error is that one's alone."""
        dispatcher = await self._started()
        answers = (dispatcher.accept(*one) for one in accepted)
        return await asyncio.gather(*answers, return_exceptions=True)

    async def charge(self, tenant: str, what: Charged, name: str) -> Refusal | None:
        return await (await self._started()).charge(tenant, what, name)

    async def release(self, tenant: str, name: str) -> None:
        await (await self._started()).release(tenant, name)

    async def cancel(self, tenant: str, name: str) -> None:
        await (await self._started()).cancel(tenant, name)

    async def open_job(self, tenant: str, name: str) -> None:
        await (await self._started()).open_job(tenant, name)

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        await (await self._started()).forget(tenant, names, stored_bytes)

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        return await (await self._started()).snapshot(looked_at)

    async def ready(self) -> bool:
        return await (await self._started()).ready()

    async def close(self) -> None:
        """End all tasks; edits that run are left to the next dispatcher."""
        if self._starting is not None:
            await (await self._starting).close()

    async def _started(self) -> Dispatcher:
        """The dispatcher, which the first question starts: constructors of actors cannot wait."""
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(self._starting)

    async def _start(self) -> Dispatcher:
        dispatcher = open_dispatcher(self._settings, self._make_farm(self._settings))
        await dispatcher.start()
        return dispatcher


DispatcherActor: Any = ray.remote(DispatcherShell).options(
    num_cpus=0, max_restarts=-1, max_concurrency=_AT_ONCE
)


class RemoteDoor:
    """The dispatcher's actor; implements `serve.doors.DispatcherDoor`.

    Args:
        find: gives the actor; asked first, and again when the actor was replaced.
    """

    def __init__(self, find: Callable[[], Awaitable[Any]]) -> None:
        self._find = find
        self._actor: Any = None
        self._asking = Convoy(self._admit_all)
        self._accepting = Convoy(self._accept_all)
        self._known: set[str] = set()

    async def admit(self, tenant: str, name: str, pixels: int) -> Refusal | None:
        asked = tenant, name, pixels
        if tenant in self._known:
            return _or_raise(await self._asking.ask(asked))
        (found,) = await self._admit_all([asked])  # what a tenant keeps may have to be counted
        self._known.add(tenant)
        return _or_raise(found)

    async def accept(self, tenant: str, name: str, priority: Priority, stored_bytes: int) -> None:
        _or_raise(await self._accepting.ask((tenant, name, priority, stored_bytes)))

    async def charge(self, tenant: str, what: Charged, name: str) -> Refusal | None:
        return await self._ask("charge", tenant, what, name)

    async def release(self, tenant: str, name: str) -> None:
        await self._ask("release", tenant, name)

    async def cancel(self, tenant: str, name: str) -> None:
        await self._ask("cancel", tenant, name)

    async def open_job(self, tenant: str, name: str) -> None:
        await self._ask("open_job", tenant, name)

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        await self._ask("forget", tenant, names, stored_bytes)

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        return await self._ask("snapshot", tuple(looked_at))

    async def ready(self) -> bool:
        try:
            return await self._ask("ready", patience=_READY_PATIENCE)
        except BusyError:
            return False

    async def _admit_all(self, asked: Sequence[_Asked]) -> Sequence[Refusal | BaseException | None]:
        return await self._ask("admit_all", asked)

    async def _accept_all(self, accepted: Sequence[_Accepted]) -> Sequence[BaseException | None]:
        return await self._ask("accept_all", accepted)

    async def _ask(self, method: str, *arguments: Any, patience: float = _PATIENCE) -> Any:
        """What the dispatcher says.

        Raises:
            BusyError: it is not there, or too slow.
            FarmError: what it raised.
        """
        try:
            async with asyncio.timeout(patience):
                if self._actor is None:
                    self._actor = await self._find()
                return await getattr(self._actor, method).remote(*arguments)
        except (TimeoutError, RayServeException) as error:
            self._actor = None
            raise BusyError("the dispatcher does not answer: try again") from error
        except RayError as error:
            found = unwrapped(error)
            if found.retryable:
                self._actor = None  # whoever keeps it alive knows its successor
                raise BusyError("the dispatcher is being replaced: try again") from error
            raise found from error


def _or_raise(outcome: _T | BaseException) -> _T:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
