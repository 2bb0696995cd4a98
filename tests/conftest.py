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
    parser.addoption(
        "--chaos-edits",
        type=int,
        default=200,
        metavar="N",
        help="edits of the long run of tests/chaos",
    )
    parser.addoption(
        "--chaos-seed",
        type=int,
        default=1,
        metavar="S",
        help="what dies when in tests/chaos is drawn from it",
    )
