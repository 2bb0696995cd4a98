from collections.abc import Iterator

import pytest

from actors.farm_session import FarmSession, open_farm
from cluster.table import TABLE
from tests.actors.toy import Meeting, ToyHost
from tests.rays import own_ray

# small, so that backbones of several modules and two zoo workers have room beside each other
SMALL = TABLE.backbone_on_cpu.model_copy(update={"num_cpus": 0.1})


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests of this folder."""
    with own_ray(num_cpus=4):
        yield


@pytest.fixture(scope="session")
def toy_farm(ray_session: None) -> Iterator[FarmSession]:
    """A farm for tests that leave it as it was."""
    with open_farm(ToyHost, placement=SMALL) as farm:
        yield farm


@pytest.fixture(autouse=True)
def nobody_left_waiting() -> Iterator[None]:
    """Also where a test failed before it released whom it had called."""
    yield
    Meeting.end_all()
