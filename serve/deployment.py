"""The Ray Serve shell: replicas of the HTTP side, which are stateless, and one dispatcher.

The only file that sees both Ray's `serve` and ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from ray.serve.exceptions import RayServeException
from starlette.types import ASGIApp

from actors.calls import unwrapped
from serve.admission import Refusal
from serve.api import build_app
from serve.assembly import open_dispatcher, open_services
from serve.convoy import Convoy
from serve.doors import EditFarm, Snapshot
from serve.gate import check_listening
from serve.problems import BusyError
from serve.ray_farm import ray_farm
from serve.records import Priority
from serve.settings import Settings

_T = TypeVar("_T")
_Asked = tuple[str, str, int]
"""Arguments of `DispatcherDoor.admit`."""
_Accepted = tuple[str, str, Priority, int]
"""Those of `accept`."""
MakeFarm = Callable[[Settings], EditFarm]

_ONGOING = 4096
"""Requests that one replica has open, most of them listeners; ours is the admission that counts."""
_PATIENCE = 5.0
"""Seconds to wait for the dispatcher, which may be starting."""
_READY_PATIENCE = 6.0


@ray_serve.deployment(
    name="dispatcher",
    num_replicas=1,
    max_ongoing_requests=_ONGOING,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=5,
    health_check_timeout_s=15,
    graceful_shutdown_timeout_s=5,
)
class DispatcherDeployment:
    """`serve.dispatcher.Dispatcher` in a process of its own."""

    async def __init__(  # pyright: ignore - Serve awaits it
        self, settings: Settings, make_farm: MakeFarm
    ) -> None:
        _show_logs()
        self._dispatcher = open_dispatcher(settings, make_farm(settings))
        await self._dispatcher.start()

    async def admit_all(self, asked: Sequence[_Asked]) -> Sequence[Refusal | BaseException | None]:
        """`DispatcherDoor.admit` of each; an error is that one's alone."""
        answers = (self._dispatcher.admit(*one) for one in asked)
        return await asyncio.gather(*answers, return_exceptions=True)

    async def accept_all(self, accepted: Sequence[_Accepted]) -> Sequence[BaseException | None]:
        """`DispatcherDoor.accept` of each; an error is that one's alone."""
        answers = (self._dispatcher.accept(*one) for one in accepted)
        return await asyncio.gather(*answers, return_exceptions=True)

    async def release(self, tenant: str, name: str) -> None:
        await self._dispatcher.release(tenant, name)

    async def cancel(self, tenant: str, name: str) -> None:
        await self._dispatcher.cancel(tenant, name)

    async def open_job(self, tenant: str, name: str) -> None:
        await self._dispatcher.open_job(tenant, name)

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        await self._dispatcher.forget(tenant, names, stored_bytes)

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        return await self._dispatcher.snapshot(looked_at)

    async def ready(self) -> bool:
        return await self._dispatcher.ready()

    async def __del__(self) -> None:
        await self._dispatcher.close()


@ray_serve.deployment(
    name="http",
    max_ongoing_requests=_ONGOING,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=5,
    health_check_timeout_s=15,
    graceful_shutdown_timeout_s=5,
)
@ray_serve.ingress()  # pyright: ignore[reportUntypedClassDecorator]
class HttpDeployment:
    """One replica of the HTTP side.

    Raises:
        InvalidRequestError: Serve listens beyond this machine, and there are no keys.
    """

    def __init__(self, settings: Settings, dispatcher: Any) -> None:
        _show_logs()
        check_listening(_listening_host(), has_keys=settings.keys_file is not None)
        self._services = open_services(settings, RemoteDoor(dispatcher))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(self._services)


class RemoteDoor:
    """The dispatcher's handle; implements `serve.doors.DispatcherDoor`."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
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

    async def release(self, tenant: str, name: str) -> None:
        await _answer(self._handle.release.remote(tenant, name))

    async def cancel(self, tenant: str, name: str) -> None:
        await _answer(self._handle.cancel.remote(tenant, name))

    async def open_job(self, tenant: str, name: str) -> None:
        await _answer(self._handle.open_job.remote(tenant, name))

    async def forget(self, tenant: str, names: Sequence[str], stored_bytes: int) -> None:
        await _answer(self._handle.forget.remote(tenant, names, stored_bytes))

    async def snapshot(self, looked_at: Collection[tuple[str, str]] = ()) -> Snapshot:
        return await _answer(self._handle.snapshot.remote(tuple(looked_at)))

    async def ready(self) -> bool:
        try:
            return await _answer(self._handle.ready.remote(), _READY_PATIENCE)
        except BusyError:
            return False

    async def _admit_all(self, asked: Sequence[_Asked]) -> Sequence[Refusal | BaseException | None]:
        return await _answer(self._handle.admit_all.remote(asked))

    async def _accept_all(self, accepted: Sequence[_Accepted]) -> Sequence[BaseException | None]:
        return await _answer(self._handle.accept_all.remote(accepted))


def build(settings: Settings, make_farm: MakeFarm = ray_farm) -> Any:
    """The Serve application of these settings.

    Args:
        settings: of all its parts.
        make_farm: who runs edits, made in the dispatcher's process.
    """
    settings = settings.absolute()
    http = HttpDeployment.options(num_replicas=settings.replicas)
    return http.bind(settings, DispatcherDeployment.bind(settings, make_farm))


async def _answer(call: Awaitable[_T], patience: float = _PATIENCE) -> _T:
    """What the dispatcher says.

    Raises:
        BusyError: it is not there, or too slow.
        FarmError: what it raised.
    """
    try:
        return await asyncio.wait_for(call, patience)
    except (TimeoutError, RayServeException) as error:
        raise BusyError("the dispatcher does not answer: try again") from error
    except RayError as error:
        found = unwrapped(error)
        if found.retryable:
            raise BusyError("the dispatcher is being replaced: try again") from error
        raise found from error


def _or_raise(outcome: _T | BaseException) -> _T:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _listening_host() -> str | None:
    """Where Serve's proxies listen; replicas cannot see it otherwise."""
    client = _get_global_client()
    assert client is not None, "a replica has a controller"
    return client.http_config.host


def _show_logs() -> None:
    """Our own lines into the replica's log, whose format Serve sets."""
    serve_logger = logging.getLogger("ray.serve")
    for name in ("editfarm.serve", "editfarm.access"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers = serve_logger.handlers
        logger.propagate = False
