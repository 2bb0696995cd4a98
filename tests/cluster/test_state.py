"""Why work waits, what `status` says of it, notices of a machine's end, and lines of logs."""

import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from actors.cluster_state import ClusterState, NodeState, Wait, explain
from actors.draining import await_notice
from actors.logs import JsonLines, configure_logs, logged_edit
from actors.scraping import Sample, scrape
from cluster import metrics as m
from cluster.nodes import NODES
from jobs import drain, top
from jobs.status import app, wait_lines
from jobs.top import Look, compare

GPU = Wait({"CPU": 1.0, "GPU": 1.0}, {"farm/pool": "gpu"}, 2)


def node(kind: str, number: int = 0) -> NodeState:
    row = NODES.kind(kind)
    assert row is not None
    total = {"CPU": float(row.ray_cpus), "GPU": float(row.gpus)}
    return NodeState(f"{kind}{number}", kind, row.labels, "busy", total, total, 0.0)


def farm(*nodes: NodeState, **more) -> ClusterState:
    return ClusterState((node("head"), *nodes), autoscaled=True, **more)


def test_at_the_maximum_the_kinds_and_their_limits_are_named():
    full = [node("gpu-spot", n) for n in range(16)] + [node("gpu-on-demand", n) for n in range(4)]
    (reason,) = explain(GPU, farm(*full)).reasons
    assert "gpu-spot 16 of 16, gpu-on-demand 4 of 4" in reason
    assert "raise max_nodes" in reason


def test_what_comes_and_what_cannot_be_had_is_said():
    state = farm(starting={"gpu-spot": 3}, failures=(("gpu-spot", "no capacity"), ("x", "y")))
    reasons = explain(GPU, state).reasons
    assert reasons == ("3 gpu-spot starting", "gpu-spot cannot be had: no capacity")


def test_nodes_that_start_count_towards_the_maximum():
    full = farm(starting={"gpu-spot": 16, "gpu-on-demand": 4})
    assert "at its maximum" in explain(GPU, full).reasons[0]


@pytest.mark.parametrize(
    ("resources", "labels"),
    [
        ({"GPU": 2.0}, {}),
        ({"GPU": 1.0}, {"farm/pool": "trainers"}),
        ({"CPU": 1.0}, {"farm/market": "free"}),
        ({"TPU": 1.0}, {}),
    ],
)
def test_what_no_kind_has_is_hopeless(resources, labels):
    wait = explain(Wait(resources, labels, 1), farm())
    assert wait.hopeless
    assert "no kind of node has" in wait.reasons[0]


def test_without_an_autoscaler_what_is_free_is_said():
    wait = explain(GPU, ClusterState((node("head"),)))
    assert not wait.hopeless
    assert "starts no machines by itself" in wait.reasons[0]
    first, *_ = wait_lines(ClusterState((), waits=(wait,)))
    assert first == "2 waiting for 1 CPU, 1 GPU (farm/pool=gpu):"


def test_status_says_where_there_is_no_cluster():
    shown = CliRunner().invoke(app, ["--address", "127.0.0.1:1"])
    assert shown.exit_code == 3
    assert "nobody listens at " in shown.stderr


@pytest.mark.parametrize("command", [app, drain.app, top.app], ids=["status", "drain", "top"])
def test_without_a_ray_the_answer_is_a_line(command, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    shown = CliRunner().invoke(command, [])
    assert shown.exit_code == 3
    assert "no Ray runs on this machine" in " ".join(shown.stderr.split())


class Metadata(BaseHTTPRequestHandler):
    """A cloud's metadata service that gives notice at the third question."""

    asked = 0

    def do_PUT(self) -> None:
        self._answer(200, "token")

    def do_GET(self) -> None:
        type(self).asked += 1
        if "instance-action" in self.path:
            assert self.headers["X-aws-ec2-metadata-token"] == "token"
            self._answer(200 if self.asked >= 3 else 404, '{"action": "terminate"}')
        else:
            assert self.headers["Metadata-Flavor"] == "Google"
            self._answer(200, "TRUE" if self.asked >= 3 else "FALSE")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args) -> None:
        pass


@pytest.mark.parametrize(("cloud", "says"), [("aws", "terminate"), ("gcp", "preempted")])
def test_a_clouds_notice_is_awaited(cloud, says):
    Metadata.asked = 0
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert says in await_notice(cloud, base=base, poll=0.0)
        assert Metadata.asked == 3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_lines_of_logs_are_json_and_name_the_edit(caplog):
    record = logging.LogRecord("farm.x", logging.WARNING, __file__, 1, "%d left", (3,), None)
    with logged_edit("3f0c", "acme"):
        line = json.loads(JsonLines().format(record))
    assert (line["edit"], line["tenant"]) == ("3f0c", "acme")
    assert (line["level"], line["message"]) == ("warning", "3 left")
    assert "edit" not in json.loads(JsonLines().format(record))


def test_logs_change_only_where_the_environment_asks(monkeypatch):
    logger = logging.getLogger("farm")
    before = list(logger.handlers), logger.propagate, logger.level
    monkeypatch.delenv("EDITFARM_LOG", raising=False)
    configure_logs()
    assert (logger.handlers, logger.propagate, logger.level) == before
    monkeypatch.setenv("EDITFARM_LOG", "json")
    try:
        configure_logs()
        configure_logs()
        assert len(logger.handlers) == len(before[0]) + 1
    finally:
        for name in ("farm", "actors", "serve", "jobs"):
            mine = logging.getLogger(name)
            mine.handlers = [h for h in mine.handlers if not isinstance(h.formatter, JsonLines)]
            mine.propagate = True
            mine.setLevel(logging.NOTSET)


def sample(**values: float) -> Sample:
    rows = {
        m.BUSY.exported: {frozenset(): values["busy"]},
        m.UPTIME.exported: {frozenset(): values["up"]},
        m.BATCHES.exported: {frozenset({("op", "toy")}): values["batches"]},
        m.ITEMS.exported: {frozenset({("op", "toy")}): values["items"]},
        m.STEP_SECONDS.exported: {frozenset({("op", "toy")}): values["seconds"]},
    }
    return Sample(rows)


def test_top_shows_what_happened_between_two_looks():
    then = Look(100.0, sample(busy=10, up=100, batches=50, items=100, seconds=5))
    now = Look(110.0, sample(busy=16, up=120, batches=60, items=140, seconds=7))
    figures = compare(then, now)
    assert figures["busy_share"] == 0.3
    assert figures["operations"]["toy"] == {
        "items_per_second": 4.0,
        "mean_batch": 4.0,
        "batch_seconds": 0.2,
        "wait_seconds": 0.0,
    }


def test_a_process_that_went_is_no_negative_rate():
    then = Look(0.0, sample(busy=10, up=100, batches=50, items=100, seconds=5))
    figures = compare(then, Look(10.0, sample(busy=1, up=2, batches=1, items=2, seconds=0)))
    assert figures["busy_share"] == 0.0
    assert figures["operations"] == {}


def test_exporters_that_do_not_answer_are_counted():
    assert scrape(["http://127.0.0.1:1/metrics"], frozenset()).silent == 1
