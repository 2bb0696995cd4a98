"""A proxy before an S3 server that answers as S3 does on its worst days, drawn from a seed."""

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_CHUNKS = 8
SLOW_PAUSE = 0.02  # seconds between two pieces of a slow reply

XML = "<Error><Code>{code}</Code><Message>as drawn</Message></Error>"
REFUSALS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "409": (409, "ConditionalRequestConflict"),
}
KINDS = ("500", "503", "lost reply", "reset", "slow", "409")


@dataclass
class Faults:
    """What goes wrong, and how often it did.

    Attributes:
        seed: of what is drawn.
        share: of requests to which something happens.
        served: how often each kind did.
        requests: all that came.
    """

    seed: int
    share: float
    served: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def draw(self, method: str, is_conditional: bool) -> str | None:
        """What happens to this request; 409 is for conditional ones alone."""
        with self._lock:
            self.requests += 1
            if self._random.random() >= self.share:
                return None
            kinds = [k for k in KINDS if k != "409" or is_conditional]
            kind = self._random.choice(kinds)
            self.served[kind] += 1
            return kind


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    faults: Faults

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        conditional = {"If-None-Match", "If-Match"} & set(self.headers.keys())
        kind = self.faults.draw(self.command, bool(conditional))
        if kind in REFUSALS:
            status, code = REFUSALS[kind]
            self.reply(status, [("Content-Type", "application/xml")], XML.format(code=code))
            return
        status, headers, data = self.forward(body)
        if kind == "lost reply":  # done, and nobody hears of it
            self.reply(500, [("Content-Type", "application/xml")], XML.format(code="InternalError"))
        elif kind == "reset":
            self.reset(status, headers, data)
        else:
            self.reply(status, headers, data, slow=kind == "slow")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            data = answer.read()
            kept = [
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in {"connection", "transfer-encoding", "date", "server"}
            ]
            return answer.status, kept, data
        finally:
            connection.close()

    def reply(self, status: int, headers, data: bytes | str, *, slow: bool = False) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.start(status, headers, len(data))
        if self.command == "HEAD":
            return
        step = max(1, -(-len(data) // SLOW_CHUNKS)) if slow else len(data) or 1
        for offset in range(0, len(data), step):
            if slow:
                threading.Event().wait(SLOW_PAUSE)
            self.wfile.write(data[offset : offset + step])

    def reset(self, status: int, headers, data: bytes) -> None:
        """Half a reply, then the connection is torn."""
        self.start(status, headers, len(data))
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def start(self, status: int, headers, length: int) -> None:
        self.send_response(status)
        named = {name.lower() for name, _ in headers}
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in named:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError, OSError):  # torn by us, or by a client that was killed
            self.close_connection = True

    def finish(self) -> None:
        with suppress(ConnectionError, ValueError, OSError):
            super().finish()

    def log_message(self, format: str, *args) -> None:  # noqa: A002
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        pass  # a torn connection is no news here


@contextmanager
def faulty(endpoint: str, faults: Faults) -> Iterator[str]:
    """The endpoint of a proxy before another endpoint."""
    handler = type("Faulty", (Handler,), {"upstream": urlsplit(endpoint).netloc, "faults": faults})
    server = QuietServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
