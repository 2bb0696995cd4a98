"""Several model sets on one accelerator: by shares of its memory, as Ray counts them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.farm_session import join_farm, leave_farm
from actors.local import accelerator, local_ray
from actors.sharing import Gpu, accelerator_memories, shared_placement
from cluster.nodes import NODES
from farm.errors import UnavailableError
from tests.actors.toy import ToyHost, echo

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

GIB = 2**30
MEMORY = [24 * GIB]
WEIGHTS = {"sd15": 4 * GIB, "infinity": 8 * GIB}
FARM = "sharing-test"


@pytest.fixture
def one_gpu() -> Iterator[None]:
    """A Ray that believes in a GPU; nobody computes on it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    with local_ray(num_cpus=4, num_gpus=1, address="local", temp_dir=folder):
        yield
        leave_farm(FARM)
    shutil.rmtree(folder, ignore_errors=True)


def test_two_model_sets_of_two_doors_live_on_one_gpu_by_their_memory(one_gpu: None) -> None:
    assert accelerator() == "cuda"
    rows = {name: shared_placement(name, WEIGHTS, MEMORY) for name in WEIGHTS}
    assert rows["sd15"].num_gpus == pytest.approx(7 / 19, abs=1e-3)  # 1.25 · 4 + 2 of 7 + 12 GiB
    assert rows["infinity"].num_gpus == pytest.approx(12 / 19, abs=1e-3)
    doors = [
        join_farm(ToyHost, name, name=FARM, placement=row, device="cpu")
        for name, row in rows.items()
    ]
    pids = {door.executor().run_all([echo(1)])[0].pid for door in doors}
    assert len(pids) == 2  # both answer, and stay
    assert ray.available_resources().get("GPU", 0.0) == pytest.approx(0.0, abs=1e-3)
    again = {door.executor().run_all([echo(2)])[0].pid for door in doors}
    assert again == pids  # nobody had to go for the other


def test_who_has_no_room_beside_the_others_is_told() -> None:
    with pytest.raises(UnavailableError, match=r"no room for infinity.*infinity 12.0, sd15 7.0"):
        shared_placement("infinity", WEIGHTS, [6 * GIB])
    with pytest.raises(UnavailableError, match="the devices have none"):
        shared_placement("sd15", WEIGHTS, [])


def test_a_cluster_s_devices_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.sharing.has_pools", lambda: True)
    assert accelerator_memories(NODES) == [24 * GIB]
    monkeypatch.setattr("actors.sharing.has_pools", lambda: False)
    monkeypatch.setattr("actors.sharing.driver_gpus", list)
    assert accelerator_memories(NODES) == []


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        (None, [1, 2, 3]),
        ("1", [2]),
        ("2, 0", [3, 1]),
        ("GPU-a1,GPU-b2", [1, 2]),
        ("", []),
        ("7", []),
    ],
)
def test_devices_that_are_hidden_from_ray_are_not_planned_for(monkeypatch, asked, sizes):
    if asked is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked)
    gpus = [Gpu("a card", "1", size) for size in (1, 2, 3)]
    monkeypatch.setattr("actors.sharing.driver_gpus", lambda: gpus)
    assert accelerator_memories(NODES) == sizes
