import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.farm_session import FarmSession, open_farm
from actors.local import local_ray
from cluster.table import TABLE
from tests.actors.toy import ToyHost

# small, so that backbones of several modules and two zoo workers have room beside each other
SMALL = TABLE.backbone_on_cpu.model_copy(update={"num_cpus": 0.1})


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for all tests of this folder, in a folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    with local_ray(num_cpus=4, num_gpus=0, address="local", temp_dir=folder):
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def toy_farm(ray_session: None) -> Iterator[FarmSession]:
    """A farm for tests that leave it as it was."""
    with open_farm(ToyHost, placement=SMALL) as farm:
        yield farm
