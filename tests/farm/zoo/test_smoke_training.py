"""Every recipe trains, resumes to the bit, and trains alike on one and on two workers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from farm.threads import one_thread
from farm.zoo.recipes.loop import Report, train_recipe
from farm.zoo.recipes.parts import PARTS
from tests.farm.zoo.smoke import SMOKES, STEPS, smoke_training, train_all_on_rank


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def single_threaded():
    with one_thread():
        yield


def test_there_is_a_smoke_training_for_every_part():
    assert set(SMOKES) | {"unet-ungrounded"} == set(PARTS)  # that is unet's recipe too


OFTEN = {"vae", "unet", "infinity"}
"""Always tried; the others, which share the loop with them, with `make chaos`."""
RESUMED = [
    name if name in OFTEN else pytest.param(name, marks=pytest.mark.chaos) for name in SMOKES
]


@pytest.mark.parametrize("name", RESUMED)
def test_twenty_steps_are_ten_and_ten_more(name, tmp_path, cache):
    whole = smoke_training(name, tmp_path / "whole", cache)
    before = {n: p.detach().clone() for n, p in whole.parameters.items()}
    half = tmp_path / "half"
    reports: list[Report] = []
    for report in train_recipe(whole):
        reports.append(report)
        if report.step == STEPS // 2:  # as it stands there, were the process killed now
            shutil.copytree(whole.folder, half)
    assert [r.step for r in reports] == list(range(1, STEPS + 1))
    assert all(torch.isfinite(torch.tensor(r.loss)) for r in reports)
    still = [n for n, p in whole.parameters.items() if torch.equal(p, before[n])]
    assert not still, "every parameter has a gradient"

    second = smoke_training(name, half, cache)
    assert second.step == STEPS // 2
    list(train_recipe(second))
    for key, value in whole.module.state_dict().items():
        assert torch.equal(second.module.state_dict()[key], value)
        assert torch.equal(second.average[key], whole.average[key])
    curves = [t.curve.read_text().splitlines() for t in (whole, second)]
    assert [json.loads(line)["step"] for line in curves[0]] == [5, 10, 15, 20]
    assert curves[0] == curves[1]


ON_TWO = {
    "often": ["unet"],
    # inpainting trains so on Ray's workers, tests/actors/test_zoo_smoke.py
    "all": [name for name in SMOKES if name != "inpainting"],
}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["often", pytest.param("all", marks=pytest.mark.chaos)])
def test_two_workers_keep_the_same_weights_and_see_different_data(tmp_path, which):
    names = ON_TWO[which]
    SMOKES["infinity"].recipe(tmp_path / "cache")  # writes what it is trained on
    multiprocessing.start_processes(
        train_all_on_rank, args=(2, names, tmp_path), nprocs=2, start_method="spawn"
    )
    for name in names:
        first, second = (load_file(tmp_path / f"{name}.{r}.safetensors") for r in (0, 1))
        losses = first.pop("losses"), second.pop("losses")
        assert not torch.equal(*losses)
        assert torch.isfinite(torch.stack(losses)).all()
        for key, value in first.items():
            assert torch.equal(second[key], value), (name, key)
        assert (tmp_path / name).is_dir()
