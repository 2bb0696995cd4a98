"""moto's S3 server in this process, behind a wire that can be told to misbehave."""

import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

BUCKET = "farm"

Environ = dict[str, Any]
Fault = Callable[["WireToMoto", Environ, Callable], Iterable[bytes]]


class WireToMoto:
    """A WSGI application. `faults` are used up one by one by requests of their method.

    moto looks and writes in two steps; S3 does it in one. The lock makes moto as atomic as S3.
    """

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.ignored_headers: set[str] = set()
        self.faults: list[tuple[str, Fault]] = []
        self._one_at_a_time = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable) -> Iterable[bytes]:
        for header in self.ignored_headers:
            environ.pop("HTTP_" + header.upper().replace("-", "_"), None)
        with self._one_at_a_time:
            if self.faults and self.faults[0][0] == environ["REQUEST_METHOD"]:
                _, fault = self.faults.pop(0)
                return fault(self, environ, start_response)
            return list(self.app(environ, start_response))


def answers(status: str, code: str) -> Fault:
    """The request is not carried out, and this error is the reply."""

    def fault(_: WireToMoto, environ: Environ, start_response: Callable) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()]

    return fault


def loses_reply(wire: WireToMoto, environ: Environ, start_response: Callable) -> Iterable[bytes]:
    """The request is carried out, but its sender hears of an error."""
    list(wire.app(environ, lambda *_: None))
    start_response("500 Internal Server Error", [("Content-Type", "application/xml")])
    return [b"<Error><Code>InternalError</Code><Message>as told</Message></Error>"]


def breaks_off(wire: WireToMoto, environ: Environ, start_response: Callable) -> Iterable[bytes]:
    """The reply begins and ends half-way."""
    body = b"".join(wire.app(environ, start_response))
    return [body[: len(body) // 2]]


@contextmanager
def running(wire: WireToMoto):
    """The endpoint of a server on a free port of this machine."""
    server = make_server("127.0.0.1", 0, wire, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def running_with_bucket(wire: WireToMoto):
    """The endpoint of a server with `BUCKET`, for which this environment has credentials."""
    with pytest.MonkeyPatch.context() as environment, running(wire) as endpoint:
        environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            environment.delenv(name, raising=False)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
            Bucket=BUCKET
        )
        yield endpoint
