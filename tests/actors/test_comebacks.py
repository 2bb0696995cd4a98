"""Backbones that were ready and cannot be loaded anew: an outage, and no fault of any edit."""

import asyncio
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from actors.calls import is_loss, unwrapped
from actors.executor import RemoteExecutor
from actors.farm_session import open_farm
from actors.fleet import Fleet, HostedModel
from actors.fleet_actor import FleetShell, RoutedReplica
from actors.replicas import Replica
from actors.route import FleetReplicas
from actors.shell import Sealed
from actors.stats import BatcherStats
from cluster.table import TABLE, BackbonePlacement
from farm.calls import Answer, Call
from farm.errors import BackboneLostError, EditFailedError, FarmError, ModelSetError
from farm.errors import UnavailableError as Unavailable
from tests.actors.conftest import SMALL
from tests.actors.hosts import call, value_of
from tests.actors.toy import ToyHost, echo

FIGURES = TABLE.fleet.model_copy(update={"tick_seconds": 0.01})
NO_ROOM = "the networks need 40 GB, and 3 GB are free"


class Machine:
    """Starts backbones whose constructors raise while told to; a handle is one of its own."""

    def __init__(self) -> None:
        self.error: FarmError | None = None
        self.handles: list[Handle] = []
        self.started_again = asyncio.Event()

    def start(self, _model: HostedModel) -> "Handle":
        self.handles.append(Handle(self.error))
        if len(self.handles) == 3:
            self.started_again.set()
        return self.handles[-1]

    def restart(self, _handle: "Handle") -> None: ...

    def stop(self, _handle: "Handle") -> None: ...

    def has_room(self, _placement: BackbonePlacement) -> bool:
        return True


class Handle:
    """Of an actor that says how it is, or why it is not."""

    def __init__(self, error: FarmError | None) -> None:
        self.error = error

    @property
    def stats(self) -> "Handle":
        return self

    async def remote(self) -> BatcherStats:
        if self.error is not None:
            raise self.error
        return BatcherStats()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("actors.fleet._ERROR_PAUSE", 0.05)
    return Machine()


async def fleet_on(machine: Machine) -> FleetShell:
    shell = FleetShell(FIGURES)
    shell._fleet = Fleet(machine, FIGURES, asyncio.get_running_loop().time)
    row = TABLE.backbone_on_cpu.model_copy(update={"min_replicas": 1})
    await shell.host(HostedModel("scenes", Sealed(b""), "cpu", row))
    return shell


async def test_a_model_set_that_never_loaded_is_refused_at_once(machine: Machine) -> None:
    machine.error = ModelSetError("weights are missing")
    shell = await fleet_on(machine)
    with pytest.raises(ModelSetError, match="weights are missing"):
        await asyncio.wait_for(shell.route("scenes", 60.0), 10)
    await shell.close()


@pytest.mark.parametrize("error", [ModelSetError(NO_ROOM), EditFailedError("no CUDA")])
async def test_one_that_loaded_before_is_waited_for(machine: Machine, error: FarmError) -> None:
    shell = await fleet_on(machine)
    assert len(await shell.route("scenes", 10.0) or []) == 1
    machine.error = machine.handles[0].error = error  # it died, and so do those in its place
    await asyncio.wait_for(machine.started_again.wait(), 10)
    with pytest.raises(Unavailable, match=error.message) as raised:
        await shell.route("scenes", 0.2)
    assert raised.value.retryable
    waiting = asyncio.create_task(shell.route("scenes", 10.0))
    machine.error = None
    (routed,) = await waiting or []
    assert routed.handle is machine.handles[-1]
    await shell.close()


async def test_a_fleet_that_started_anew_is_told_that_it_loads(machine: Machine) -> None:
    machine.error = ModelSetError(NO_ROOM)
    shell = await fleet_on(machine)
    with pytest.raises(Unavailable, match="3 GB are free"):
        await shell.route("scenes", 0.2, proven=True)
    await shell.close()


class Replaced:
    """Two backbones, one after the other; see `actors.replicas.Replicas`."""

    def __init__(self, *handles: Any) -> None:
        self.left = [Replica(handle) for handle in handles]

    def current(self) -> Sequence[Replica]:
        return self.left[:1]

    def lost(self, replica: Replica) -> bool:
        self.left.remove(replica)
        return bool(self.left)


class Answering:
    """A handle that echoes, or raises this instead."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    @property
    def answer(self) -> "Answering":
        return self

    async def remote(self, calls: Sequence[Call], _sender: Any) -> list[Answer]:
        if self.error is not None:
            raise self.error
        return [Answer(one.arrays, {}, 0.0) for one in calls]


def constructor_raised(error: FarmError) -> ActorDiedError:
    found = ActorDiedError(RayTaskError("__init__", "its traceback", error))
    assert unwrapped(found) is error
    return found


async def test_calls_of_one_that_could_not_start_anew_are_asked_elsewhere() -> None:
    gone = Answering(constructor_raised(ModelSetError(NO_ROOM)))
    (answer,) = await RemoteExecutor(Replaced(gone, Answering())).answers([call(7)])
    assert value_of(answer) == 7


async def test_without_another_its_own_error_comes_out() -> None:
    gone = Answering(constructor_raised(ModelSetError(NO_ROOM)))
    with pytest.raises(ModelSetError):
        await RemoteExecutor(Replaced(gone)).answers([call(7)])


async def test_an_error_of_one_that_lives_is_no_loss() -> None:
    failing = Answering(RayTaskError("answer", "its traceback", KeyError("unforeseen")))
    with pytest.raises(EditFailedError, match="unforeseen"):
        await RemoteExecutor(Replaced(failing, Answering())).answers([call(7)])
    assert not is_loss(EditFailedError("x"))
    assert is_loss(BackboneLostError("x"))


def broken_while(there: Path, device: str) -> ToyHost:
    if there.exists():
        raise ModelSetError(NO_ROOM)
    return ToyHost(device)


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_whoever_asks_waits_until_one_is_loaded_again(ray_session: None, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    with open_farm(partial(broken_while, flag), placement=SMALL) as farm:
        executor = farm.executor()
        (before,) = executor.run_all([echo(1)])
        flag.touch()
        os.kill(before.pid, signal.SIGKILL)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(executor.run_all, [echo(2)])
            with pytest.raises(TimeoutError):
                asked.result(8.0)  # a first one failed to load by then, and another will be tried
            flag.unlink()
            (after,) = asked.result(120)
    assert after.arrays["value"] == 2
    assert after.pid != before.pid


def test_who_is_told_of_a_farm_that_was_ready_knows_that_its_networks_can_be_loaded() -> None:
    """A trainer's first question may come when the fleet has just started anew."""
    asked: list[bool] = []

    def wait(*, proven: bool) -> list[RoutedReplica]:
        asked.append(proven)
        return [RoutedReplica(1, object(), 0)]

    for proven in (False, True):
        fleet = SimpleNamespace(route=SimpleNamespace(remote=lambda _name: None))
        route: Any = SimpleNamespace(
            wait=wait, proven=proven, fleet=fleet, model=SimpleNamespace(name="toy")
        )
        FleetReplicas(route, clock=lambda: 0.0).current()
    assert asked == [False, True]
