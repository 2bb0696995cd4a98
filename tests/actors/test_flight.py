"""A flight whose fleet starts anew: with fakes of what is far, and with a fleet that is killed."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors import flight, route
from actors.farm_session import FarmSession, open_farm
from actors.fleet import HostedModel
from actors.fleet_actor import RoutedReplica
from actors.flight import Flight
from actors.route import ModelRoute
from actors.shell import Sealed
from cluster.table import TABLE
from farm.errors import UnavailableError
from tests.actors.conftest import SMALL
from tests.actors.toy import ToyHost, ToyRequest, echo, train_toy

MODEL = HostedModel("toy", Sealed(b""), "cpu", TABLE.backbone_on_cpu)


@dataclass
class FakeFleet:
    """Has one backbone as soon as it was told what to hold."""

    hosted: bool = False
    forgets: bool = False

    @property
    def route(self) -> Any:
        return SimpleNamespace(remote=self._route)

    @property
    def host(self) -> Any:
        return SimpleNamespace(remote=self._host)

    def _route(
        self, name: str, patience: float, _at_least: int, _proven: bool
    ) -> list[RoutedReplica] | None:
        assert name == MODEL.name
        assert patience > 0, "without patience a fleet may answer that it has none"
        backbone = SimpleNamespace(health=SimpleNamespace(remote=lambda: 7))
        return [RoutedReplica(1, backbone, 0)] if self.hosted else None

    def _host(self, model: HostedModel) -> None:
        self.hosted = model == MODEL and not self.forgets


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    """What it is asked is answered at once."""
    fake = FakeFleet()
    monkeypatch.setattr(route, "result_of", lambda ref, timeout: ref)
    monkeypatch.setattr(flight, "results_of", lambda refs, timeout: refs)
    return fake


def test_a_fleet_that_started_anew_becomes_well_though_no_trainer_is_left(fleet: FakeFleet) -> None:
    farm = FarmSession((), None, "cpu", ModelRoute(fleet, MODEL))
    assert Flight(farm, train_toy).is_healthy()


def test_a_fleet_that_starts_anew_again_and_again_is_not_waited_for_without_end(
    fleet: FakeFleet,
) -> None:
    fleet.forgets = True
    with pytest.raises(UnavailableError, match="forgot toy 5 times"):
        ModelRoute(fleet, MODEL).wait()


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_fleet_that_is_killed_comes_back_and_nobody_is_told(ray_session: None) -> None:
    with open_farm(ToyHost, placement=SMALL) as farm:
        before = farm.backbone_pids()
        assert farm.route is not None
        ray.kill(farm.route.fleet, no_restart=False)
        flown = Flight(farm, train_toy)
        assert any(flown.is_healthy() for _ in range(12))  # each waits; a full machine takes long
        assert farm.backbone_pids() != before  # they ended with their fleet
        assert len(farm.executor().run_all([echo(1)])) == 1


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_an_edit_has_its_place_as_long_as_the_machine_is_there_that_it_told_of(
    ray_session: None,
) -> None:
    with open_farm(ToyHost, placement=SMALL) as farm:
        flown = Flight(farm, train_toy)
        assert flown.is_placed("unheard of"), "it has told of no machine yet"
        ray.get(farm.board.push.remote("far", {"node": "0" * 56}))
        assert not flown.is_placed("far")
        ray.get(farm.submit("here", train_toy, ToyRequest(seed=1, steps=2)))
        assert farm.progress()["here"]["node"] == ray.get_runtime_context().get_node_id()
        assert flown.is_placed("here")
