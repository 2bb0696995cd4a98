import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.storage.local import LocalStore
from farm.storage.s3 import S3Store
from farm.storage.store import Store
from tests.farm.storage.servers import BUCKET, WireToMoto, running_with_bucket


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[WireToMoto, str]]:
    wire = WireToMoto()
    with running_with_bucket(wire) as endpoint:
        yield wire, endpoint


@pytest.fixture
def wire(s3_server: tuple[WireToMoto, str]) -> Iterator[WireToMoto]:
    wire, _ = s3_server
    yield wire
    left = list(wire.faults)
    wire.faults.clear()
    wire.ignored_headers.clear()
    assert not left, "a fault that no request met"


@pytest.fixture
def endpoint(s3_server: tuple[WireToMoto, str]) -> str:
    return s3_server[1]


@pytest.fixture
def s3_store(endpoint: str) -> S3Store:
    """A place of its own in the bucket; conflicts are asked about again at once."""
    return S3Store(
        BUCKET,
        prefix=f"tests/{uuid.uuid4().hex}",
        endpoint_url=endpoint,
        region="us-east-1",
        conflict_delays=(0.0, 0.0),
    )


@pytest.fixture
def local_store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(f"{request.param}_store")
