"""The fleet's rules, with processes that are only pretended."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from actors.fleet import Fleet, HostedModel, Report
from actors.shell import Sealed
from actors.stats import BatcherStats
from cluster.table import TABLE, BackbonePlacement
from farm.errors import BackboneLostError, ModelSetError
from tests.actors.hosts import Clock

FIGURES = TABLE.fleet.model_copy(
    update={
        "depth_per_replica": 10,
        "idle_seconds": 60.0,
        "evict_seconds": 2.0,
        "silent_seconds": 20.0,
    }
)


class Pretended:
    """A launcher on a machine with so many GPUs; handles are numbers."""

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.running: dict[int, HostedModel] = {}
        self.started = 0
        self.restarted: list[int] = []
        self.stopped: list[int] = []

    def start(self, model: HostedModel) -> int:
        self.started += 1
        self.running[self.started] = model
        return self.started

    def restart(self, handle: int) -> None:
        self.restarted.append(handle)

    def stop(self, handle: int) -> None:
        self.stopped.append(handle)
        self.running.pop(handle, None)

    def has_room(self, placement: BackbonePlacement) -> bool:
        used = sum(model.placement.num_gpus for model in self.running.values())
        return used + placement.num_gpus <= self.gpus


class World:
    """A fleet, its pretended machine, and what its backbones would answer."""

    def __init__(self, gpus: float = 2.0) -> None:
        self.clock = Clock()
        self.machine = Pretended(gpus)
        self.fleet = Fleet(self.machine, FIGURES, self.clock)
        self.answers: dict[int, Report | None] = {}

    def host(self, name: str, least: int = 0, most: int = 1, gpus: float = 1.0) -> None:
        row = TABLE.backbone_on_gpu.model_copy(
            update={"num_gpus": gpus, "min_replicas": least, "max_replicas": most}
        )
        self.fleet.host(HostedModel(name, Sealed(b""), "cuda", row))

    def tick(self, seconds: float = 0.5) -> None:
        """Time passes, all that run answer that they are idle, unless something else is set."""
        self.clock.now += seconds
        reports: Mapping[int, Report | None] = {
            member.number: self.answers.get(member.handle, BatcherStats())
            for member in self.fleet.members()
        }
        self.fleet.tick({n: report for n, report in reports.items() if report is not None})

    def ready(self, name: str) -> list[Any]:
        return [member.handle for member in self.fleet.models[name].ready]


def busy(depth: int, items: int = 1) -> BatcherStats:
    return BatcherStats(waiting=depth, items=items)


def test_a_model_set_that_is_asked_for_is_started_and_known_when_it_answers() -> None:
    world = World()
    world.host("scenes")
    world.tick()
    assert world.machine.started == 1
    assert world.ready("scenes") == []
    world.answers[1] = None  # it loads
    world.tick()
    assert (world.machine.started, world.ready("scenes")) == (1, [])
    world.answers[1] = BatcherStats()
    world.tick()
    assert world.ready("scenes") == [1]
    assert world.fleet.ask("other") is None


def test_all_that_are_always_there_start_at_once() -> None:
    world = World(gpus=1.0)
    world.host("scenes", least=3, most=3)
    world.tick()
    assert world.machine.started == 3  # two wait for room: an autoscaler sees them


def test_long_queues_bring_replicas_up_to_the_most_and_idleness_takes_them_away() -> None:
    world = World(gpus=8.0)
    world.host("scenes", most=3)
    world.tick()
    world.answers[1] = busy(5)
    for _ in range(4):
        world.tick()
    assert world.machine.started == 1
    world.answers[1] = busy(95)
    for _ in range(8):
        world.tick()
    assert world.machine.started == 3
    assert world.ready("scenes") == [1, 2, 3]
    world.answers[1] = BatcherStats(items=1)
    for _ in range(100):
        world.fleet.ask("scenes")
        world.tick(1.0)
    assert world.ready("scenes") == [1]  # asked for, so one stays: the one that remembers most
    for _ in range(100):
        world.tick(1.0)
    assert world.ready("scenes") == []
    assert sorted(world.machine.stopped) == [1, 2, 3]
    world.fleet.ask("scenes")
    world.tick()
    assert world.machine.started == 4


def test_a_replica_leaves_only_with_empty_hands() -> None:
    world = World(gpus=8.0)
    world.host("scenes", most=2)
    world.tick()
    world.answers[1] = busy(30)
    for _ in range(3):
        world.tick()
    world.answers[1] = BatcherStats(items=1)
    for _ in range(62):
        world.fleet.ask("scenes")
        world.tick(1.0)
    assert world.ready("scenes") == [1]
    assert world.machine.stopped == []
    world.answers[2] = busy(1)  # a caller that had not heard of it yet
    for _ in range(10):
        world.fleet.ask("scenes")
        world.tick(1.0)
    assert world.machine.stopped == []
    world.answers[2] = BatcherStats(items=2)
    world.tick(1.0)
    assert world.machine.stopped == [2]


def test_another_model_set_that_is_idle_makes_room() -> None:
    world = World(gpus=1.0)
    world.host("first")
    world.tick()
    world.tick()
    world.host("second")
    world.answers |= {1: busy(1), 2: None}
    for _ in range(5):
        world.tick()
    assert world.machine.stopped == []  # it works
    assert world.machine.started == 2  # the other waits for room, seen by an autoscaler
    world.answers[1] = busy(0)
    world.tick(1.0)
    assert world.machine.stopped == []  # perhaps it goes on in a moment
    world.tick(1.5)
    assert world.machine.stopped == [1]
    world.answers[2] = BatcherStats()
    for _ in range(12):
        world.tick()
    assert world.ready("second") == [2]
    assert world.ready("first") == []  # nobody asks for it, so it does not come back
    assert world.machine.started == 2


def test_a_room_is_made_once_for_each_that_waits() -> None:
    world = World(gpus=2.0)
    for name in ("first", "second"):
        world.host(name)
        world.tick()
    world.tick(5.0)
    world.host("third")
    world.answers[3] = None  # its weights load slowly
    for _ in range(10):
        world.tick(1.0)
    assert world.machine.stopped == [1]  # the one that was idle longest, and not the other too


def test_what_is_reserved_is_not_evicted() -> None:
    world = World(gpus=1.0)
    world.host("first", least=1)
    for _ in range(5):
        world.tick(2.0)
    world.host("second")
    for _ in range(20):
        world.tick(2.0)
    assert world.machine.stopped == []
    assert world.ready("first") == [1]


def test_several_model_sets_share_an_accelerator() -> None:
    world = World(gpus=1.0)
    for name in ("dino", "clip", "judge"):
        world.host(name, gpus=0.25)
    world.host("unet", gpus=0.25)
    for _ in range(3):
        world.tick()
    assert world.machine.started == 4
    assert world.machine.stopped == []


def test_one_that_is_gone_for_good_is_replaced() -> None:
    world = World()
    world.host("scenes", least=1)
    world.tick()
    world.tick()
    world.answers[1] = BackboneLostError("its node is gone")
    world.tick()
    world.tick()
    assert world.ready("scenes") == [2]


@pytest.mark.parametrize("silence", [None, replace(busy(3), running_seconds=10_000.0)])
def test_one_that_hangs_is_started_anew_in_its_place(silence: BatcherStats | None) -> None:
    world = World()
    world.host("scenes", least=1)
    world.tick()
    world.tick()
    world.answers[1] = silence
    for _ in range(5):
        world.tick(5.0)
    assert world.machine.restarted[:1] == [1]
    assert world.machine.started == 1
    world.answers[1] = BatcherStats()
    world.tick()
    assert world.ready("scenes") == [1]


def test_networks_that_cannot_be_loaded_are_not_tried_without_end() -> None:
    world = World()
    world.host("broken")
    world.tick()
    world.answers |= dict.fromkeys(range(1, 50), ModelSetError("weights are missing"))
    for _ in range(10):
        world.tick()
    assert isinstance(world.fleet.models["broken"].error, ModelSetError)
    assert world.machine.started == 1
    for _ in range(25):
        world.tick()
    assert world.machine.started == 2


def test_whoever_starts_backbones_loads_no_tensor_library() -> None:
    """The fleet's process and the callers' side of it stay small."""
    names = ("fleet_actor", "shell", "route", "replicas")
    code = "; ".join(f"import actors.{name}" for name in names)
    code += "; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_hosting_again_is_asking_and_other_weights_are_another_model() -> None:
    world = World()
    world.host("scenes", least=1)
    world.tick()
    world.host("scenes", least=1)
    world.tick()
    assert world.machine.started == 1
    world.fleet.host(replace(world.fleet.models["scenes"].hosted, sealed=Sealed(b"other")))
    world.tick()
    assert (world.machine.started, world.machine.stopped) == (2, [1])
    world.fleet.drop("scenes")
    assert world.machine.stopped == [1, 2]
