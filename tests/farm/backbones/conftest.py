import pytest

from farm.backbones.host import OperationHost
from farm.backbones.networks import Networks
from farm.diffusion import DiffusionClient
from tests.tiny import tiny_networks


@pytest.fixture
def networks() -> Networks:
    return tiny_networks()


@pytest.fixture
def host(networks: Networks) -> OperationHost:
    return OperationHost(networks)


@pytest.fixture
def client(host: OperationHost, networks: Networks) -> DiffusionClient:
    return DiffusionClient(host, networks.spec)
