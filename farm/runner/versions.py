"""Versions of what influences a result."""

from importlib import metadata


def versions() -> dict[str, str]:
    """Of this machine, by distribution."""
    return {name: metadata.version(name) for name in ("editfarm", "torch", "diffusers", "numpy")}
