"""The studio on Ray Serve: an application of its own with one replica, beside the API's.

One replica: a visitor's page lives in the memory of the process that made it.
"""

import importlib.util
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict
from ray import serve as ray_serve
from ray.serve.context import _get_global_client  # pyright: ignore[reportPrivateUsage]
from starlette.types import ASGIApp

from farm.errors import InvalidRequestError
from serve.gate import check_listening

_ONGOING = 1024
_MOST_CONNECTIONS = 512


class StudioSettings(BaseModel):
    """Arguments of the studio's application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api: str | None = None
    """Address of the HTTP API; left out: what Serve itself listens on, from this machine."""
    with_keys: bool = False
    """Whether the API asks for keys: the page asks its visitors for theirs. True wherever the
    API's `keys_file` is set."""


def has_gradio() -> bool:
    """Whether the extra `ui` is installed."""
    return importlib.util.find_spec("gradio") is not None


def check_gradio() -> None:
    """Say what is missing where the studio is wanted.

    Raises:
        InvalidRequestError: the extra `ui` is not installed.
    """
    if not has_gradio():
        raise InvalidRequestError(
            "the studio needs Gradio, which is not installed: pip install 'editfarm[ui]', or serve "
            "without it (--no-studio; in a Serve config, leave its application out)"
        )


@ray_serve.deployment(
    name="studio",
    num_replicas=1,
    max_ongoing_requests=_ONGOING,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=5,
    health_check_timeout_s=30,
    graceful_shutdown_timeout_s=5,
)
@ray_serve.ingress()  # pyright: ignore[reportUntypedClassDecorator]
class StudioDeployment:
    """The page.

    Raises:
        InvalidRequestError: Serve listens beyond this machine, and visitors need no key; or
            Gradio is not installed.
    """

    def __init__(self, settings: StudioSettings) -> None:
        check_gradio()
        host, port = _listening()
        check_listening(host, has_keys=settings.with_keys)
        self._settings = settings
        self._api = settings.api or f"http://127.0.0.1:{port}"

    def __serve_build_asgi_app__(self) -> ASGIApp:
        from serve.studio.site import build_site  # noqa: PLC0415 - Gradio is an extra, and slow

        limits = httpx2.Limits(max_connections=_MOST_CONNECTIONS)
        http = httpx2.AsyncClient(base_url=self._api, limits=limits)
        return build_site(http, with_keys=self._settings.with_keys)


def build_studio(settings: StudioSettings) -> Any:
    """The Serve application; its route prefix is `serve.studio.panels.ROOT`."""
    return StudioDeployment.bind(settings)


def _listening() -> tuple[str | None, int]:
    """Where Serve's proxies listen."""
    client = _get_global_client()
    assert client is not None, "a replica has a controller"
    return client.http_config.host, client.http_config.port
