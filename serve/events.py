"""Server-Sent Events: an edit's way to its end."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Generator
from typing import Any, TypeVar

from prometheus_client import Gauge

from serve.problems import NotFoundError, TooManyError
from serve.views import edit_view
from serve.watching import Watcher

_HEARTBEAT_SECONDS = 15.0
_Item = TypeVar("_Item")


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Listeners:
    """Counts open streams, and refuses one too many.

    Args:
        most: of all tenants.
        gauge: shows how many there are.
    """

    def __init__(self, most: int, gauge: Gauge) -> None:
        self._most, self._gauge = most, gauge
        self._open: Counter[str] = Counter()

    def check(self, tenant: str) -> None:
        """Raises `TooManyError` where there are too many already."""
        if self._open.total() >= self._most or self._open[tenant] >= max(1, self._most // 2):
            raise TooManyError("too_many_listeners", "too many event streams are open", 5.0)

    @contextlib.contextmanager
    def counted(self, tenant: str) -> Generator[None, None, None]:
        """For as long as a stream is open."""
        self._open[tenant] += 1
        try:
            with self._gauge.track_inprogress():
                yield
        finally:
            self._open[tenant] -= 1
            self._open += Counter()  # drops those without any


async def edit_events(
    watcher: Watcher, tenant: str, name: str, listeners: Listeners, *, previews: bool = True
) -> AsyncIterator[bytes]:
    """`state` first and on every change of state, `progress` on every step, the end's name last.

    The stream ends with the edit: `done`, `failed`, `cancelled`, or `deleted`. With `previews`
    `progress` says where the latest picture is.
    """
    with listeners.counted(tenant):
        state = None
        follow = watcher.follow(tenant, name, previews=previews)
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
