"""A recipe of the zoo on two Ray Train workers, with its curve and checkpoint."""

from functools import partial
from pathlib import Path

import pytest

from actors.zoo_training import train_on_workers
from farm.zoo.recipes.curves import read_curve
from tests.farm.zoo.smoke import STEPS, smoke_training

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.chaos,  # a minute: `make chaos`
    pytest.mark.usefixtures("ray_session"),
    pytest.mark.timeout(240),
]


def test_inpainting_trains_twenty_steps_on_two_workers(tmp_path: Path) -> None:
    build = partial(smoke_training, "inpainting", tmp_path / "state", tmp_path / "cache")
    figures = train_on_workers(build, workers=2)
    assert figures["step"] == STEPS
    assert 0 < figures["v_mse"] < 10
    resumed = build()
    assert resumed.step == STEPS
    assert [point["step"] for point in read_curve(resumed.curve)] == [5, 10, 15, 20]
