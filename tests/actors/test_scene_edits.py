"""Real edits of the scenes set through Ray: one inversion for two, and equal whatever is killed."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from actors.calls import results_of
from actors.edits import StoredEdit, load_host
from actors.farm_session import FarmSession, open_farm
from farm.errors import ModelSetError
from farm.results import EditResult
from farm.runner import PreparedEdit, load_stage
from farm.runner.style_diffusion import unpack_inversion
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.weights import SCENES_FOLDER
from tests.actors.conftest import SMALL
from tests.actors.scene_edits import KillingHalfWay, WithModules, pictures_of, prepared_edits

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.timeout(300)]

TENANT = "default"
HALF = 2
"""Of four timesteps."""


@dataclass
class Undisturbed:
    """Two targets of one image, run at the same time while nothing else happens."""

    edits: list[PreparedEdit]
    store: LocalStore
    results: list[EditResult]
    modules: set[str]
    optimiser_steps: int
    """That the backbone computed meanwhile."""

    def pictures(self, number: int) -> dict[str, bytes]:
        return pictures_of(self.store, self.results[number])

    def executed(self) -> tuple[int, ...]:
        """Optimiser steps of each timestep of the inversion."""
        (digest,) = self.edits[0].stages.values()
        return unpack_inversion(load_stage(self.store, TENANT, digest)).state.executed


@pytest.fixture(scope="module")
def models() -> ModelSet:
    return open_model_set("scenes")


@pytest.fixture(scope="module")
def farm(ray_session: None, models: ModelSet) -> Iterator[FarmSession]:
    with open_farm(partial(load_host, models), placement=SMALL) as session:
        yield session


@pytest.fixture(scope="module")
def undisturbed(
    farm: FarmSession, models: ModelSet, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    edits = prepared_edits(models, ("red", "blue"))
    store = LocalStore(tmp_path_factory.mktemp("undisturbed"))
    before = farm.stats()[0].items_by_op.get("unet.value_loss", 0)
    entry = WithModules(StoredEdit(store, TENANT))
    answers = results_of([farm.submit(e.request.id or "", entry, e) for e in edits])
    after = farm.stats()[0].items_by_op["unet.value_loss"]
    results, modules = zip(*answers, strict=True)
    return Undisturbed(edits, store, list(results), set.union(*modules), after - before)


def test_two_targets_at_once_cost_one_inversion(undisturbed: Undisturbed) -> None:
    made = [result.provenance.stages_made for result in undisturbed.results]
    assert sorted(made) == [[], ["inversion"]]
    assert undisturbed.optimiser_steps == sum(undisturbed.executed()) > 0
    work = [result.provenance.work.get("unet_backward", 0) for result in undisturbed.results]
    assert sorted(work) == [0, undisturbed.optimiser_steps]
    assert len({r.provenance.trainer_pid for r in undisturbed.results}) == 2
    assert undisturbed.pictures(0)["edited.png"] != undisturbed.pictures(1)["edited.png"]


def test_a_trainer_of_a_real_edit_loads_no_library_of_networks(undisturbed: Undisturbed) -> None:
    assert {"torch", "farm", "ray"} <= undisturbed.modules
    assert not undisturbed.modules & {"diffusers", "transformers", "timm", "torchvision", "boto3"}


def run_killing(
    farm: FarmSession, edit: PreparedEdit, folder: Path, pid: int | None
) -> tuple[EditResult, dict[str, bytes], int]:
    """The edit into a store of its own, its pictures, and who was killed."""
    store, killed = LocalStore(folder / "store"), folder / "killed"
    entry = KillingHalfWay(StoredEdit(store, TENANT), HALF, killed, pid)
    (result,) = results_of([farm.submit("killing", entry, edit)])
    return result, pictures_of(store, result), int(killed.read_text())


@pytest.mark.chaos
def test_an_edit_whose_backbone_is_killed_half_way_is_the_same_to_the_bit(
    farm: FarmSession, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    (first,) = farm.backbone_pids()
    result, pictures, _ = run_killing(farm, undisturbed.edits[0], tmp_path, first)
    assert result.provenance.backbone_pids == sorted([first, *farm.backbone_pids()])
    assert len(result.provenance.backbone_pids) == 2
    assert pictures == undisturbed.pictures(0)


def test_an_edit_whose_trainer_is_killed_half_way_goes_on_and_is_the_same_to_the_bit(
    farm: FarmSession, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    result, pictures, killed = run_killing(farm, undisturbed.edits[1], tmp_path, None)
    assert result.provenance.trainer_pid != killed
    left = sum(undisturbed.executed()[HALF:])
    assert result.provenance.work["unet_backward"] == left < undisturbed.optimiser_steps
    assert pictures == undisturbed.pictures(1)


@pytest.mark.chaos
def test_weights_that_are_not_what_results_would_name_are_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    shutil.copytree(SCENES_FOLDER, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with (
        pytest.raises(ModelSetError, match=r"unet.*has digest .*, expected"),
        open_farm(partial(load_host, open_model_set(str(folder))), placement=SMALL),
    ):
        pytest.fail("a farm with other weights was opened")
