"""Versions of what influences a result."""

from functools import cache
from importlib import metadata


def versions() -> dict[str, str]:
    """Of this machine, by distribution."""
    return dict(_read())


@cache
def _read() -> tuple[tuple[str, str], ...]:
    """Once a process: reading the files of four distributions takes two milliseconds."""
    names = ("editfarm", "torch", "diffusers", "numpy")
    return tuple((name, metadata.version(name)) for name in names)
