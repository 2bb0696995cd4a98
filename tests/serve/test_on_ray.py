"""The whole of it on Ray Serve: real HTTP, real processes, and kills of each of them."""

import base64
import contextlib
import json
import os
import pickle
from pathlib import Path

import grpc
import openai
import psutil
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

from farm.images import decode_image
from serve.settings import Settings
from tests.collector import collecting
from tests.serve.conftest import PICTURE, WORDS
from tests.serve.served import LONG, QUICK, ended, kill, process, served, submit, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def collector():
    with collecting() as found, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_TRACES_EXPORTER", "otlp")
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield found


@pytest.fixture(scope="module")
def client(tiny_set, tmp_path_factory, collector):
    store = tmp_path_factory.mktemp("store")
    with served(Settings(store=str(store), model_set=str(tiny_set))) as found:
        yield found


def test_openais_client_edits_a_picture(client):
    remote = openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="none", max_retries=0)
    response = remote.images.edit(
        image=("a.png", PICTURE, "image/png"),
        prompt="a blue ball",
        extra_body={"source_prompt": "a red ball", "parameters": json.loads(QUICK)},
    )
    picture = decode_image(base64.b64decode(response.data[0].b64_json))
    assert picture.image.shape == (3, 24, 20)


def test_events_come_over_the_wire(client):
    name = submit(client, 1, LONG)
    with client.stream("GET", f"/v1/edits/{name}/events") as response:
        found = [line for line in response.iter_lines() if line.startswith("event: ")]
    assert found[0] == "event: state"
    assert "event: progress" in found
    assert found[-1] == "event: done"


def test_a_trace_leads_from_the_request_to_the_operation(client, collector):
    """Through the record in the store, the dispatcher, the trainer's task and the backbone."""
    theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = client.post(
        "/v1/edits",
        data={**WORDS, "parameters": QUICK, "seed": "77"},
        files={"image": ("a.png", PICTURE, "image/png")},
        headers={"traceparent": f"00-{theirs}-00f067aa0ba902b7-01"},
    )
    assert ended(client, response.json()["id"])["state"] == "done"

    def operations():
        ours = [s for s in collector.spans if s.trace_id == bytes.fromhex(theirs)]
        lines = [collector.line_above(s) for s in ours if s.name.startswith("backbone ")]
        return [line for line in lines if line[1:] == ["trainer", "edit", "POST"]]

    wait_until(lambda: any("unet.value_loss" in line[0] for line in operations()))


def test_a_running_edit_is_cancelled(client):
    name = submit(client, 2, '{"num_steps": 100, "inner_steps": 500}')
    place = f"/v1/edits/{name}"
    wait_until(lambda: client.get(place).json()["progress"])
    client.post(f"{place}/cancel")
    assert ended(client, name)["state"] == "cancelled"


def test_nobody_elses_name_is_served(client):
    assert client.get("/v1/edits", headers={"Host": "evil.example"}).status_code == 421


class Forged:
    """Pickled bytes that do something to whoever unpickles them."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_replica_unpickles_what_strangers_send(client, tmp_path):
    """Serve's servers between deployments listen on all interfaces: Ray's token guards them."""

    def send(port, ran, metadata=()):
        request = ASGIRequest(pickled_request_metadata=pickle.dumps(Forged(ran)))
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = ASGIServiceStub(channel)
            with contextlib.suppress(grpc.RpcError):
                stub.HandleRequest(request, timeout=10, metadata=metadata)
        return ran.exists()

    own = [("authorization", f"Bearer {os.environ['RAY_AUTH_TOKEN']}")]
    for title in ("ServeReplica:editfarm:http", "ServeReplica:editfarm:dispatcher"):
        sockets = process(title).net_connections("tcp")
        ports = [found.laddr.port for found in sockets if found.status == psutil.CONN_LISTEN]
        assert not any(send(port, tmp_path / f"{title}-stranger") for port in ports)
        # the same message with the token: it is the token that makes the difference
        assert any(send(port, tmp_path / f"{title}-own", own) for port in ports)


@pytest.mark.parametrize(
    ("title", "first"),
    [
        ("ServeReplica:editfarm:http", 100),
        pytest.param("ServeReplica:editfarm:dispatcher", 200, marks=pytest.mark.chaos),
        ("DispatcherShell", 400),
        pytest.param("ServeController", 300, marks=pytest.mark.chaos),
    ],
)
def test_edits_outlive_a_killed_part_of_serve(client, title, first):
    names = [submit(client, seed, LONG) for seed in range(first, first + 4)]
    before = process(title).pid
    kill(title)
    assert {ended(client, name)["state"] for name in names} == {"done"}
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert ended(client, submit(client, before))["state"] == "done"
    assert process(title).pid != before


@pytest.mark.chaos
def test_edits_outlive_a_killed_backbone(client):
    names = [submit(client, seed, LONG) for seed in range(30, 34)]
    wait_until(lambda: client.get(f"/v1/edits/{names[0]}").json().get("progress"))
    kill("ray::Backbone")
    edits = [ended(client, name) for name in names]
    assert {edit["state"] for edit in edits} == {"done"}
