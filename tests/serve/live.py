"""The application on a real port of this machine, without Ray: a thread with its own event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import uvicorn

from serve.api import build_app
from serve.assembly import open_dispatcher, open_services
from tests.serve.served import free_port, wait_until


@contextlib.contextmanager
def live_server(settings, make_farm) -> Iterator[str]:
    """The address of a server whose dispatcher runs edits on `make_farm()`."""
    port = free_port()

    async def run(started) -> None:
        dispatcher = open_dispatcher(settings, make_farm())
        await dispatcher.start()
        app = build_app(open_services(settings, dispatcher))
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        started(server)
        await server.serve()
        await dispatcher.close()

    with in_thread(run):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def in_thread(run) -> Iterator[None]:
    """A server in a thread of its own; `run` is given where to put it, and ends with it."""
    servers: list[uvicorn.Server] = []
    # a runner, as it ends the tasks that a server leaves behind
    thread = threading.Thread(target=lambda: asyncio.run(run(servers.append)), daemon=True)
    thread.start()
    try:
        wait_until(lambda: not thread.is_alive() or (servers and servers[0].started))
        assert thread.is_alive(), "the server ended before it started"
        yield
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(30)
