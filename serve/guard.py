"""Around every request: limits that need no parsing, request ids, headers, one log line."""

import json
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.tracing import mark, span
from serve.gate import is_loopback
from serve.limits import RequestLimits
from serve.metrics import Metrics
from serve.problems import ProblemError, problem_response

access_log = logging.getLogger("editfarm.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Wraps the application.

    Args:
        app: what is guarded.
        limits: of a request.
        metrics: counts.
        loopback_only: whether only this machine is served: the name that a browser was told must
            be the machine's own too, so that no web page can reach in by a name of its own.
    """

    def __init__(
        self, app: ASGIApp, limits: RequestLimits, metrics: Metrics, *, loopback_only: bool
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse by what the request's head says."""
        problem = self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, send)
        else:
            response = problem_response(problem, scope["state"]["request_id"])
            await response(scope, receive, send)

    @property
    def max_body_bytes(self) -> int:
        return self._limits.max_body_bytes

    def _refusal(self, scope: Scope) -> ProblemError | None:
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        size = sum(len(name) + len(value) for name, value in raw)
        if len(raw) > self._limits.max_headers or size > self._limits.max_header_bytes:
            return ProblemError(431, "headers_too_large", "too many or too long headers")
        headers = Headers(raw=raw)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return ProblemError(400, "invalid_length", "content-length is no number")
        if int(length[:20]) > self.max_body_bytes:
            return too_large(self.max_body_bytes)
        if self._loopback_only:
            return stranger(scope, headers)
        return None

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """One line and two figures for a response; neither image bytes nor prompts are in it."""
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"], route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        state: MutableMapping[str, Any] = scope["state"]
        about = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "tenant": state.get("tenant"),
            "edit": scope.get("path_params", {}).get("edit_id"),
        }
        access_log.info(json.dumps(about))


class _Exchange:
    """One request and its response."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self._guard, self._scope = guard, scope
        self._receive, self._send = receive, send
        self._status = 500
        self._received = 0
        state = scope.setdefault("state", {})
        given = Headers(scope=scope).get("x-request-id", "")
        self._id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state["request_id"] = self._id

    async def run(self) -> None:
        started = time.monotonic()
        parent = Headers(scope=self._scope).get("traceparent", "")
        with span(self._scope["method"], parent, server=True, request_id=self._id):
            try:
                await self._guard.serve(self._scope, self._count, self._sign)
            finally:
                self._guard.note(self._scope, self._status, time.monotonic() - started)
                route = getattr(self._scope.get("route"), "path", "none")
                mark(**{"http.route": route, "http.response.status_code": self._status})

    async def _count(self) -> Message:
        """The next piece of the body, while it is not too long; the length may not be declared."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._guard.max_body_bytes:
            raise too_large(self._guard.max_body_bytes)
        return message

    async def _sign(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
        await self._send(message)


def too_large(most: int) -> ProblemError:
    """The body has too many bytes."""
    return ProblemError(413, "body_too_large", f"the body is longer than {most:,} bytes")


def stranger(scope: Scope, headers: Headers) -> ProblemError | None:
    """Why a caller is not this machine's own user, if so."""
    host = headers.get("host", "")
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    if not is_loopback(name):
        return ProblemError(
            421, "not_loopback", "without API keys only http://localhost and 127.0.0.1 are served"
        )
    client = scope.get("client")
    if client and not is_loopback(str(client[0])):
        return ProblemError(403, "not_loopback", "without API keys only this machine is served")
    origin = headers.get("origin")
    if origin and not is_loopback(_host_of(origin)):
        return ProblemError(403, "foreign_origin", "without API keys no other site may call")
    return None


def _host_of(origin: str) -> str:
    name = origin.partition("://")[2]
    return name.rpartition(":")[0] if re.search(r":\d+$", name) else name
