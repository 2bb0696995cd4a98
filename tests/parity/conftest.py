"""The golden set of StyleDiffusion (`--golden DIR`)."""

from pathlib import Path

import pytest

for _cases in ("infinity_cases", "regions_cases", "style_diffusion_cases"):
    pytest.register_assert_rewrite(f"tests.parity.{_cases}")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """Folder of the golden set; `golden / "full64"` is its second, complete network."""
    return Path(request.config.getoption("--golden"))
