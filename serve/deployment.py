"""The Ray Serve shell: replicas of the HTTP side, which are stateless, and one dispatcher.

The only file that sees both Ray's `serve` and ours.
"""

import logging
from typing import Any

from ray import serve as ray_serve
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from starlette.types import ASGIApp

from serve.api import build_app
from serve.assembly import open_services
from serve.dispatcher_actor import DispatcherActor, MakeFarm, RemoteDoor
from serve.gate import check_listening
from serve.ray_farm import ray_farm
from serve.settings import Settings

_ONGOING = 4096
"""Requests that one replica has open, most of them listeners; ours is the admission that counts."""


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
    """Has the one dispatcher's actor, which lives as long as this replica, and says where it is."""

    async def __init__(  # pyright: ignore - Serve awaits it
        self, settings: Settings, make_farm: MakeFarm
    ) -> None:
        _show_logs()
        self._actor = DispatcherActor.remote(settings, make_farm)
        await self._actor.alive.remote()

    async def actor(self) -> Any:
        """Whom to ask."""
        return self._actor

    async def check_health(self) -> None:
        """Serve calls this: a dispatcher that Ray cannot start again is replaced."""
        await self._actor.alive.remote()

    async def __del__(self) -> None:
        await self._actor.close.remote()


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
        self._services = open_services(settings, RemoteDoor(dispatcher.actor.remote))

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return build_app(self._services)


def build(settings: Settings, make_farm: MakeFarm = ray_farm) -> Any:
    """The Serve application of these settings.

    Args:
        settings: of all its parts.
        make_farm: who runs edits, made in the dispatcher's process.
    """
    settings = settings.absolute()
    http = HttpDeployment.options(num_replicas=settings.replicas)
    return http.bind(settings, DispatcherDeployment.bind(settings, make_farm))


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
