"""A collector of OpenTelemetry spans on this machine: what an operator's would be sent."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """Spans as they came in.

    Attributes:
        endpoint: for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._spans: list[Span] = []
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """What one export holds."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def line_above(self, span: Span) -> list[str]:
        """Names from a span up to the first of its trace, as far as they have come in."""
        by_id = {found.span_id: found for found in self.spans if found.trace_id == span.trace_id}
        names = [span.name]
        while (parent := by_id.get(span.parent_span_id)) is not None:
            span = parent
            names.append(span.name)
        return names


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
