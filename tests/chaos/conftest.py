from collections.abc import Iterator
from functools import partial

import pytest

from actors.edits import load_host
from actors.farm_session import FarmSession, open_farm
from farm.zoo.model_sets import ModelSet, open_model_set
from tests.rays import own_ray


@pytest.fixture(scope="session")
def models() -> ModelSet:
    return open_model_set("scenes")


@pytest.fixture(scope="session")
def farm(models: ModelSet) -> Iterator[FarmSession]:
    """The farm as users have it, on a Ray of our own."""
    with own_ray(num_cpus=2), open_farm(partial(load_host, models)) as session:
        yield session
