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
    from farm.zoo.model_sets import open_model_set
    from tests.tiny_regions import write_tiny_region_set

    folder = tmp_path_factory.mktemp("sets") / "regions"
    write_tiny_region_set(folder)
    return open_model_set(str(folder))


@pytest.fixture(scope="session")
def host():
    """These networks, in this process."""
    from farm.backbones.host import OperationHost
    from tests.tiny_regions import tiny_region_networks

    return OperationHost(tiny_region_networks())
