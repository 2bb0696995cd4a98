"""The golden set of StyleDiffusion (`--golden DIR`)."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.parity.infinity_cases")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """Folder of the golden set; `golden / "full64"` is its second, complete network."""
    return Path(request.config.getoption("--golden"))
