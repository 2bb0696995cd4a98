"""The API and the studio on one port of this machine, as Serve's proxy puts them, without Ray."""

import contextlib
from collections.abc import Iterator

import httpx2
import uvicorn

from serve.studio.site import build_site
from tests.serve.live import in_thread, live_server
from tests.serve.served import free_port


@contextlib.contextmanager
def live_studio(settings, make_farm) -> Iterator[str]:
    """The studio's address; the API it speaks to has its own."""
    with live_server(settings, make_farm) as api:
        port = free_port()

        async def run(started) -> None:
            async with httpx2.AsyncClient(base_url=api) as http:
                site = build_site(http, with_keys=settings.keys_file is not None)
                config = uvicorn.Config(site, host="127.0.0.1", port=port, log_config=None)
                server = uvicorn.Server(config)
                started(server)
                await server.serve()

        with in_thread(run):
            yield f"http://127.0.0.1:{port}/studio/"
