"""Webhooks: signed, tried again, given up; and an edit tried again while one is told."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from farm.errors import EditDivergedError
from tests.serve.conftest import Scripted, ended, opened, store_of, until

pytestmark = pytest.mark.usefixtures("impatient")


class Receiver:
    """A server for webhooks that first answers as it is told."""

    def __init__(self, *statuses):
        receiver = self
        self.statuses, self.calls = list(statuses), []
        self.before_answers = []  # each is called once, before the next answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.calls.append((dict(self.headers), body))
                if receiver.before_answers:
                    receiver.before_answers.pop(0)()
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


async def told(farm, name):
    """The record when its webhook is settled, which is when its marker goes."""
    await until(lambda: all(left.id != name for left in farm.services.ledger.pending()))
    return farm.services.ledger.read("default", name)


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr("serve.webhooks._FIRST_PAUSE", 0.0)


async def test_a_webhook_is_signed_tried_again_and_not_led_elsewhere(settings, host, hurried):
    with Receiver(500, 302) as receiver:
        settings = settings.model_copy(update={"webhook_hosts": (receiver.host,)})
        async with opened(settings, host) as farm:
            url = f"http://{receiver.host}/hook"
            name = (await farm.submit(webhook_url=url)).json()["id"]
            await ended(farm, name)
            record = await told(farm, name)
    assert (record.webhook.state, record.webhook.attempts) == ("delivered", 3)
    assert len(receiver.calls) == 3
    headers, body = receiver.calls[-1]
    headers = {key.lower(): value for key, value in headers.items()}
    signed = b".".join([name.encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.new(b"no keys", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == name
    event = json.loads(body)
    assert (event["type"], event["data"]["id"]) == ("edit.done", name)


async def test_a_receiver_that_never_answers_is_given_up(settings, host, hurried):
    settings = settings.model_copy(update={"webhook_hosts": ("127.0.0.1:1",)})
    async with opened(settings, host) as farm:
        name = (await farm.submit(webhook_url="http://127.0.0.1:1/")).json()["id"]
        assert (await ended(farm, name)).state == "done"
        record = await told(farm, name)
        assert (record.webhook.state, record.webhook.attempts) == ("given_up", 8)


@contextlib.asynccontextmanager
async def dripping(head):
    """The host of a server that answers with this, and then with a byte now and then for ever."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(head)
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("head", "seconds", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", 5.0, ("delivered", 1)),
        (b"HTTP/1.1 200 OK\r\nx-never-ending: ", 0.2, ("given_up", 8)),
    ],
    ids=["body", "head"],
)
async def test_a_receiver_that_drips_its_answer_holds_nothing_up(
    settings, host, hurried, monkeypatch, head, seconds, expected
):
    monkeypatch.setattr("serve.webhooks._TIMEOUT", seconds)  # a byte comes far sooner
    async with dripping(head) as place:
        settings = settings.model_copy(update={"webhook_hosts": (place,)})
        async with opened(settings, host) as farm:
            name = (await farm.submit(webhook_url=f"http://{place}/")).json()["id"]
            assert (await ended(farm, name)).state == "done"
            record = await asyncio.wait_for(told(farm, name), 30)
    assert (record.webhook.state, record.webhook.attempts) == expected


def told_of(receiver):
    return [json.loads(body)["type"] for _, body in receiver.calls]


async def done_at_last(farm, name):
    await until(lambda: farm.services.ledger.read("default", name).state == "done")


@pytest.mark.parametrize("answer", [200, 500])
async def test_a_retry_by_the_receiver_of_a_webhook_is_told_of_too(settings, host, hurried, answer):
    loop = asyncio.get_running_loop()
    scripted = Scripted(host, store_of(settings), EditDivergedError("the loss is not finite"))
    with Receiver(answer) as receiver:
        settings = settings.model_copy(update={"webhook_hosts": (receiver.host,)})
        async with opened(settings, host, farm=scripted) as farm:

            def retry():
                name = json.loads(receiver.calls[0][1])["data"]["id"]
                asked = farm.client.post(f"/v1/edits/{name}/retry")
                assert asyncio.run_coroutine_threadsafe(asked, loop).result().status_code == 202

            receiver.before_answers.append(retry)
            name = (await farm.submit(webhook_url=f"http://{receiver.host}/")).json()["id"]
            await done_at_last(farm, name)
            record = await told(farm, name)
    assert told_of(receiver) == ["edit.failed", "edit.done"]
    assert (record.webhook.state, record.webhook.attempts) == ("delivered", 1)


async def test_a_retry_between_two_tries_of_a_webhook_ends_the_telling_of_the_old_end(
    settings, host
):
    scripted = Scripted(host, store_of(settings), EditDivergedError("the loss is not finite"))
    gates = []

    async def pause(_):
        gates.append(asyncio.Event())
        await gates[-1].wait()

    with Receiver(500, 500) as receiver:
        settings = settings.model_copy(update={"webhook_hosts": (receiver.host,)})
        async with opened(settings, host, farm=scripted) as farm:
            farm.dispatcher._courier._pause = pause
            name = (await farm.submit(webhook_url=f"http://{receiver.host}/")).json()["id"]
            await until(lambda: len(gates) == 1)
            before = len(farm.dispatcher._background)
            await farm.client.post(f"/v1/edits/{name}/retry")
            await until(lambda: len(gates) == 2)  # its new end has been told once, too
            gates[0].set()
            await until(lambda: len(farm.dispatcher._background) == before)
            await asyncio.sleep(0.3)  # some looks around
            assert [left.id for left in farm.services.ledger.pending()] == [name]
            assert told_of(receiver) == ["edit.failed", "edit.done"]
            gates[1].set()
            record = await told(farm, name)
    assert told_of(receiver) == ["edit.failed", "edit.done", "edit.done"]
    assert (record.webhook.state, record.webhook.attempts) == ("delivered", 2)
