import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from farm.storage.local import LocalStore
from farm.storage.s3 import S3Store
from farm.storage.store import Store
from tests.farm.storage.servers import WireToMoto, running

BUCKET = "farm"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[WireToMoto, str]]:
    wire = WireToMoto()
    with pytest.MonkeyPatch.context() as environment, running(wire) as endpoint:
        environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            environment.delenv(name, raising=False)
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(
            Bucket=BUCKET
        )
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
