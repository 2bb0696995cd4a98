"""One token for all Rays of this process: Ray keeps the first that it reads."""

import os
import secrets
import sys

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")
if "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What measures an exporter comes first: Ray reads how often it exports once in a process."""
    items.sort(key=lambda item: "test_monitoring" not in item.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the verdict for `pytest_unconfigure`."""
    session.config.stash[_VERDICT] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the verdict, without tearing the interpreter down.

    After several Rays in one process, the last with torch beside it, the teardown has crashed once
    in Ray's native threads, when all tests had passed and been reported.
    """
    parallel = hasattr(config, "workerinput") or config.getoption("numprocesses", None)
    if parallel or "ray" not in sys.modules or _VERDICT not in config.stash:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[_VERDICT])


_VERDICT = pytest.StashKey[int]()
