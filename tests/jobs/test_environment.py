"""The pinned environment is whole, and holds what pyproject.toml asks for."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [
    Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda r: r.name)
def test_every_requirement_is_pinned_within_its_range(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_whatever_a_pinned_package_needs_is_pinned_too():
    """`make` installs with --no-deps, so a hole would be a package that is not there."""
    pinned = pins()
    todo = [*NEEDED, Requirement("setuptools>=77")]
    done: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{requirement} is needed and not pinned"
        for extra in {"", *requirement.extras} - {e for n, e in done if n == name}:
            done.add((name, extra))
            needs = [Requirement(text) for text in metadata.requires(name) or []]
            todo += [r for r in needs if r.marker is None or r.marker.evaluate({"extra": extra})]
    assert pinned.keys() == {name for name, _ in done}


def test_constraints_are_pins_and_nothing_else():
    text = (ROOT / "constraints.txt").read_text()
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line
    assert not re.search(r"://|--|file:", text)
