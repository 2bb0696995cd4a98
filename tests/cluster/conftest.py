"""One token for all Rays of this process: Ray keeps the first that it reads."""

import os
import secrets

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")
if "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What measures an exporter comes first: Ray reads how often it exports once in a process."""
    items.sort(key=lambda item: "test_monitoring" not in item.nodeid)
