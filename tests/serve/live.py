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
    loop = asyncio.new_event_loop()
    server: list[uvicorn.Server] = []

    async def run() -> None:
        dispatcher = open_dispatcher(settings, make_farm())
        await dispatcher.start()
        app = build_app(open_services(settings, dispatcher))
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")
        server.append(uvicorn.Server(config))
        await server[0].serve()
        await dispatcher.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    try:
        wait_until(lambda: server and server[0].started)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server:
            server[0].should_exit = True
        thread.join(30)
        loop.close()
