from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        type=Path,
        default=Path(__file__).parent / "golden" / "stylediffusion",
        metavar="DIR",
        help="folder of StyleDiffusion parity vectors; sizes are read from the set",
    )
