import pytest

from farm.storage.opening import open_store


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Networks of StyleDiffusion and Learnable Regions, where a file has no set of its own."""
    # here, so that files without networks do not wait for their libraries
    from tests.tiny_regions import write_tiny_region_set
    from tests.tiny_sets import opened

    return opened(write_tiny_region_set, tmp_path_factory)


@pytest.fixture(scope="session")
def host():
    """These networks, in this process."""
    from farm.backbones.host import OperationHost
    from tests.tiny_regions import tiny_region_networks

    return OperationHost(tiny_region_networks())
