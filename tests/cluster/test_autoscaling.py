"""Ray's autoscaler over fake nodes of the table's own shapes: 0 to N to 0, spot, limits, drains."""

import json
import os
import secrets
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from ray._raylet import Config
from typer.testing import CliRunner

from actors.draining import drain
from actors.edits import load_host, run_edits
from actors.farm_session import open_farm
from actors.local import accelerator
from actors.placement import backbone_options, trainer_options
from cluster.nodes import NODES, NodeTable
from cluster.table import TABLE
from farm.errors import FarmError
from farm.images import encode_png
from farm.requests import parse_request
from farm.runner import PreparedEdit, prepare
from farm.storage.local import LocalStore
from farm.zoo.model_sets import open_model_set
from jobs.status import app
from tests.actors.toy import Meeting
from tests.cluster.fake_cluster import FakeCluster, fake_cluster
from tests.cluster.steps import HELD_AFTER, STEPS, Holder, train
from tests.tiny import write_tiny_set

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(180)]

LIMITS = {"trainer-spot": (1, 1), "trainer-on-demand": (0, 1), "gpu-spot": (0, 1)}
SMALL = NodeTable(
    kinds=tuple(
        kind.model_copy(
            update={
                "min_nodes": LIMITS.get(kind.name, (0, 1))[0],
                "max_nodes": LIMITS.get(kind.name, (0, 1))[1],
                "idle_seconds": 4,
            }
        )
        for kind in NODES.kinds
    )
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN" not in os.environ:
            patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        Config.initialize("")  # Ray read the environment when it was imported
        with fake_cluster(SMALL) as made:
            yield made


def at_rest(state) -> bool:
    """What min and max allow when nothing is asked."""
    return sorted(node.kind for node in state.nodes) == ["head", "trainer-spot"]


def test_gpus_come_with_work_spot_first_up_to_the_maximum_and_go(cluster, tmp_path):
    cluster.wait(at_rest)  # trainer-spot, which has a minimum of one, came by itself
    assert accelerator() == "cuda"  # no GPU is there, and yet backbones are to ask for one
    options = backbone_options(TABLE.backbone_on_gpu)
    assert options["label_selector"] == {"farm/pool": "gpu"}
    actor = ray.remote(Holder).options(**options)
    holders = [actor.remote()]
    first = ray.get(holders[0].node.remote(), timeout=60)
    assert cluster.workers() == ["gpu-spot", "trainer-spot"]
    holders += [actor.remote(), actor.remote()]
    state = cluster.wait(
        lambda state: (
            {node.kind for node in state.nodes} >= {"gpu-spot", "gpu-on-demand"}
            and not state.starting
            and [wait.count for wait in state.waits] == [1]
        )
    )
    (wait,) = state.waits
    assert wait.reasons[0].startswith(
        "every kind that fits is at its maximum: gpu-spot 1 of 1, gpu-on-demand 1 of 1"
    )
    assert {node.id for node in state.nodes if node.kind == "gpu-spot"} == {first}
    shown = status(cluster, tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "at its maximum: gpu-spot 1 of 1" in shown.stdout
    for holder in holders:
        ray.kill(holder)
    cluster.wait(at_rest)


def test_a_job_of_edits_brings_gpus_and_lets_them_go(cluster, tmp_path):
    """Backbones with networks on nodes that come for them; the networks compute on the CPU."""
    cluster.wait(at_rest)
    (tmp_path / "tiny").mkdir()
    write_tiny_set(tmp_path / "tiny")
    models = open_model_set(str(tmp_path / "tiny"))
    store = LocalStore(tmp_path / "edits")
    edits = [(f"edit-{seed}", tiny_edit(models, seed)) for seed in range(4)]
    with open_farm(partial(load_host, models), replicas=2, device="cpu") as farm:
        assert cluster.workers() == ["gpu-on-demand", "gpu-spot", "trainer-spot"]
        ended = dict(run_edits(farm, edits, store, tenant="job", in_flight=4))
        pids = set(farm.backbone_pids())
    assert len(pids) == 2
    for name, _ in edits:
        assert not isinstance(ended[name], FarmError), ended[name]
        assert set(ended[name].provenance.backbone_pids) <= pids
    cluster.wait(at_rest)


def tiny_edit(models, seed: int) -> PreparedEdit:
    picture = encode_png(torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)))
    fields = {
        "image": "a.png",
        "source_prompt": "a red ball",
        "target_prompt": "a blue ball",
        "model_set": str(models.folder),
        "parameters": {"num_steps": 2, "inner_steps": 2},
    }
    return prepare(parse_request(fields), picture, models)


def status(cluster: FakeCluster, folder: Path, *more: str):
    table = folder / "nodes.json"
    table.write_text(SMALL.model_dump_json())
    return CliRunner().invoke(app, ["--address", cluster.address, "--nodes", str(table), *more])


def test_what_no_kind_of_node_has_is_said_to_be_hopeless(cluster, tmp_path):
    actor = ray.remote(Holder).options(num_gpus=8, num_cpus=1).remote()
    state = cluster.wait(lambda state: any(wait.hopeless for wait in state.waits))
    (reason,) = next(wait for wait in state.waits if wait.hopeless).reasons
    assert reason.startswith("no kind of node has 1 CPU, 8 GPU with any labels: trainer-spot")
    shown = status(cluster, tmp_path, "--json")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["autoscaled"] is True
    ray.kill(actor)
    cluster.wait(lambda state: not state.waits)


def test_a_drained_spot_nodes_trainers_go_on_elsewhere_from_their_checkpoints(cluster, tmp_path):
    state = cluster.wait(at_rest)
    (spot,) = [node.id for node in state.nodes if node.kind == "trainer-spot"]
    meeting = Meeting.at(tmp_path / "meeting")
    task = ray.remote(train).options(**trainer_options())
    held = task.remote(tmp_path / "store", "held", meeting.folder)
    meeting.await_arrival()
    drain(cluster.address, spot, seconds=30, message="spot notice")
    # a trainer that comes now is placed elsewhere: a machine on demand is started for it
    other = ray.get(task.remote(tmp_path / "store", "other", None), timeout=60)
    assert other["node"] != spot
    assert other["start"] == 0
    (draining,) = [node for node in cluster.state().nodes if node.id == spot]
    assert draining.state == "draining"
    cluster.take_away(spot)
    resumed = ray.get(held, timeout=60)
    assert resumed["start"] == HELD_AFTER
    assert resumed["node"] != spot
    store = LocalStore(tmp_path / "store")
    done = sorted(key.rpartition("/")[2].partition("-")[0] for key in store.list("log/held/"))
    assert done == [str(step) for step in range(1, STEPS + 1)]  # each step once, on two machines
    nodes = {store.get(key).decode() for key in store.list("log/held/")}
    assert nodes == {spot, resumed["node"]}
