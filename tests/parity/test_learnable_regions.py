"""Learnable Regions against the vectors of the released program (`--golden DIR`, README there).

Every array of the set is a test of its own: the check whose pattern fits its name. Tolerances
follow that README: integers exact; tokens, features and embeddings 1e-5; log-probabilities 1e-4;
losses 1e-5. Sizes and settings are read from the set.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.parity.regions_cases.anchor_net import (  # noqa: F401 - collected here
    test_features_from_the_corner_alone,
    test_settings_of_the_sizes,
)
from tests.parity.regions_cases.common import CHECKS, found_check
from tests.parity.regions_cases.places import (  # noqa: F401 - collected here
    test_transposition,
)
from tests.parity.regions_cases.scores import (  # noqa: F401 - collected here
    test_losses_under_the_published_run_s_own_views,
    test_losses_without_views,
    test_the_stored_trace_follows_from_its_seed,
)
from tests.parity.regions_set import GoldenSet

OWN = Path(__file__).parents[1] / "golden" / "learnable_regions"


def set_folder(config: pytest.Config) -> Path:
    """The folder that was asked for; the option's default is another method's set."""
    given = Path(config.getoption("--golden"))
    return given if (given / "values.json").is_file() else OWN


@cache
def opened(folder: Path) -> GoldenSet:
    return GoldenSet(folder)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "array" in metafunc.fixturenames:
        folder = set_folder(metafunc.config)
        with np.load(folder / "arrays.npz") as arrays:
            metafunc.parametrize("array", arrays.files)


@pytest.fixture(scope="module")
def golden(request: pytest.FixtureRequest) -> GoldenSet:
    return opened(set_folder(request.config))


def test_array(golden: GoldenSet, array: str) -> None:
    found = found_check(array)
    assert found is not None, f"no check reads {array}"
    check, groups = found
    check(golden, array, *groups)


def test_no_array_and_no_check_is_idle(golden: GoldenSet) -> None:
    """Each array has a check, and no pattern is one that nothing fits."""
    assert [name for name in golden.arrays if found_check(name) is None] == []
    for pattern, _ in CHECKS:
        assert any(pattern.fullmatch(name) for name in golden.arrays), pattern.pattern


def test_every_weight_is_used(golden: GoldenSet) -> None:
    """Each is part of a network whose outputs are compared (strictly loaded)."""
    _ = golden.dino, golden.scorer
    for window in golden.config["Ws"]:
        golden.network(window)
    assert golden.used_weights == set(golden.weights)
