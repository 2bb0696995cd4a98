"""A model set of tiny networks, opened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from farm.zoo.model_sets import ModelSet, open_model_set


def opened(write: Callable[[Path], object], folders: pytest.TempPathFactory) -> ModelSet:
    """What a writer of tiny sets writes into a folder of its own."""
    folder = folders.mktemp("sets") / "tiny"
    write(folder)
    return open_model_set(str(folder))
