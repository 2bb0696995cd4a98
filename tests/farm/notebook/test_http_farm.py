"""`farm.edit` against a running farm: the real application on a real port, and what goes wrong."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from farm import HttpFarm, edit
from farm.errors import (
    EditDivergedError,
    InvalidRequestError,
    QueueFullError,
    UnavailableError,
    UnknownWordError,
)
from farm.notebook.http_farm import multipart
from serve.inline import InlineFarm
from serve.keys import KeyFile, add_key, write_keys
from serve.settings import Settings
from tests.serve.conftest import picture, store_of
from tests.serve.live import live_server
from tests.tiny import tiny_networks, write_tiny_set

from farm.backbones.host import OperationHost  # isort: skip

QUICK = {"num_steps": 3, "inner_steps": 2}
WORDS = {"source": "a red ball", "target": "a blue ball", "parameters": QUICK}
PICTURE = picture()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An address and its key."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "tiny").mkdir()
    write_tiny_set(folder / "tiny")
    keys, key = add_key(KeyFile(), "acme")
    write_keys(folder / "keys.json", keys)
    settings = Settings(
        store=str(folder / "store"),
        model_set=str(folder / "tiny"),
        keys_file=folder / "keys.json",
    )
    host = OperationHost(tiny_networks())
    with live_server(settings, lambda: InlineFarm(host, store_of(settings))) as address:
        yield address, key


def test_an_edit_on_a_farm_is_as_one_in_this_process(served):
    address, key = served
    steps = []
    result = edit(PICTURE, **WORDS, farm=address, key=key, progress=steps.append)
    assert result.edited.size == result.before.size == (20, 24)
    assert result.provenance.work["unet_forward"] > 0
    assert "edited.png" in result.files
    assert result.figures
    assert not result.reused
    again = edit(PICTURE, **WORDS, farm=HttpFarm(address + "/", key), deterministic=False)
    assert again.reused
    assert again.edit_id == result.edit_id


@pytest.mark.parametrize("key", [None, "ef_wrong"])
def test_who_has_no_key_is_told_so(served, key):
    with pytest.raises(InvalidRequestError, match="lets nobody in without its key"):
        edit(PICTURE, **WORDS, farm=served[0], key=key)


def test_the_farms_errors_are_our_own(served):
    address, key = served
    with pytest.raises(UnknownWordError, match="zebra"):
        edit(PICTURE, **WORDS, word="zebra", farm=address, key=key)


def test_nobody_at_the_address():
    with pytest.raises(UnavailableError, match=r"no farm answers .* `editfarm serve`"):
        edit(PICTURE, **WORDS, farm="http://127.0.0.1:9")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://", "http://x/?a=b"])
def test_an_address_that_is_none(address):
    with pytest.raises(InvalidRequestError, match="expected an address"):
        HttpFarm(address)


@pytest.mark.parametrize("key", ["two words", "x\r\nHost: y", ""])
def test_a_key_that_would_be_another_header(key):
    with pytest.raises(InvalidRequestError, match="no key has"):
        HttpFarm("http://127.0.0.1:8000", key)


@contextmanager
def answering(*answers):
    """A server that gives these answers one by one: status, headers, body."""
    waiting = list(answers)
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append(dict(self.headers))
            status, headers, body = waiting.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(status, code):
    return status, {}, json.dumps({"detail": "why", "code": code}).encode()


def view(state, **more):
    shown = {"id": "e1", "state": state, "progress": None, "error": None, **more}
    return 200, {}, json.dumps(shown).encode()


@pytest.mark.parametrize(
    ("answers", "kind", "says"),
    [
        ([problem(429, "queue_full")], QueueFullError, "why"),
        ([problem(503, "unavailable")], UnavailableError, "why"),
        ([problem(422, "invalid_request")], InvalidRequestError, "why"),
        ([(200, {}, b"<html>")], UnavailableError, "is no edit farm"),
        ([(404, {}, b"<html>")], UnavailableError, "answers 404 is no edit farm"),
        ([(200, {}, b"[]")], UnavailableError, "is no edit farm"),
        (
            [view("running"), view("failed", error={"code": "edit_diverged", "detail": "nan"})],
            EditDivergedError,
            "nan",
        ),
        ([view("cancelled")], Exception, "the edit was cancelled"),
    ],
)
def test_answers_become_errors_that_say_what_to_do(answers, kind, says):
    with answering(*answers) as (address, _), pytest.raises(kind, match=says):
        edit(PICTURE, **WORDS, farm=address)


def test_a_key_does_not_follow_a_redirect():
    with answering() as (elsewhere, seen):
        away = (302, {"Location": f"{elsewhere}/v1/edits"}, b"")
        with answering(away) as (address, asked), pytest.raises(UnavailableError, match="302"):
            edit(PICTURE, **WORDS, farm=address, key="ef_secret")
    assert asked[0]["Authorization"] == "Bearer ef_secret"
    assert seen == []


def test_a_form_holds_whatever_bytes():
    kind, body = multipart({"a": "ü\r\n--"}, {"image": b"\r\n--x\0"})
    boundary = kind.partition("boundary=")[2].encode()
    first, second, end = body.removeprefix(b"--" + boundary).split(b"--" + boundary)
    assert first.endswith("\r\n\r\nü\r\n--\r\n".encode())
    assert second.endswith(b"\r\n\r\n\r\n--x\0\r\n")
    assert end == b"--\r\n"
