"""Server-Sent Events: an edit's way to its end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from prometheus_client import Gauge

from serve.problems import NotFoundError
from serve.views import edit_view
from serve.watching import Watcher

_HEARTBEAT_SECONDS = 15.0
_Item = TypeVar("_Item")


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def edit_events(
    watcher: Watcher, tenant: str, name: str, listeners: Gauge
) -> AsyncIterator[bytes]:
    """`state` first and on every change of state, `progress` on every step, the end's name last.

    The stream ends with the edit: `done`, `failed`, `cancelled`, or `deleted`.
    """
    with listeners.track_inprogress():
        state = None
        follow = watcher.follow(tenant, name)
        try:
            async for found in with_heartbeats(follow, _HEARTBEAT_SECONDS):
                if found is None:
                    yield b": still here\n\n"
                    continue
                record, step = found
                view = edit_view(record, step)
                if record.is_final:
                    yield event(record.state, view)
                elif view["state"] != state:
                    yield event("state", view)
                elif view["progress"] is not None:
                    yield event("progress", view["progress"])
                state = view["state"]
        except NotFoundError:
            yield event("deleted", {"id": name})


async def with_heartbeats(
    source: AsyncIterator[_Item], seconds: float
) -> AsyncIterator[_Item | None]:
    """What comes from a source, and None whenever nothing came for so long."""
    pending = asyncio.ensure_future(anext(source, None))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=seconds)
            if not done:
                yield None
                continue
            item = pending.result()
            if item is None:
                return
            yield item
            pending = asyncio.ensure_future(anext(source, None))
    finally:
        pending.cancel()
        with contextlib.suppress(asyncio.CancelledError, NotFoundError):
            await pending
