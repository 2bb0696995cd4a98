"""The pinned environment is whole, and holds what pyproject.toml asks for."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from jobs.extras import EXTRAS, missing

ROOT = Path(__file__).parents[2]
DEBIAN_12 = "3.11.2"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def needed(extra: str) -> list[Requirement]:
    """What an extra brings, with the other extras that it names."""
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found += [one for name in sorted(requirement.extras) for one in needed(name)]
        else:
            found.append(requirement)
    return found


NEEDED = list(map(Requirement, PROJECT["dependencies"])) + needed("dev")


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.mark.parametrize("requirement", dict.fromkeys(NEEDED), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement):
    assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("name", pins())
def test_every_pin_installs_on_the_python_of_debian_12(name):
    """The README promises it; some packages want a later patch of 3.11, and pip takes none then."""
    wants = metadata.metadata(name).get("Requires-Python", "")
    assert SpecifierSet(wants).contains(DEBIAN_12), f"{name} wants {wants}"


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


def test_development_has_every_extra():
    (own,) = [
        r
        for r in map(Requirement, PROJECT["optional-dependencies"]["dev"])
        if r.extras and r.name == "editfarm"
    ]
    assert own.extras == set(PROJECT["optional-dependencies"]) - {"dev"}


def test_what_a_missing_module_is_said_to_need_is_an_extra():
    assert set(EXTRAS) <= set(PROJECT["optional-dependencies"])
    assert "pip install 'editfarm[serve]'" in missing("serve", "fastapi.routing")
    assert "install editfarm anew" in missing("edit", "torch")


def test_the_demo_needs_no_extra():
    """With the extras' modules out of reach, what edits and reports is imported all the same."""
    gone = sorted({module for modules in EXTRAS.values() for module in modules})
    modules = (
        "demo",
        "edit",
        "edit_many",
        "control",
        "report",
        "artifacts",
        "methods",
        "inline",
        "doctor",
    )
    code = (
        "import importlib, importlib.machinery as machinery\n"
        "find = machinery.PathFinder.find_spec\n"
        "def found(name, path=None, target=None):\n"
        f"    return None if name.partition('.')[0] in {gone} else find(name, path, target)\n"
        "machinery.PathFinder.find_spec = staticmethod(found)\n"
        f"for name in {modules}: importlib.import_module(f'jobs.{{name}}')\n"
        "from farm import edit\n"
        "from farm.storage.opening import open_store\n"
        "try: open_store('s3://bucket')\n"
        "except Exception as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'editfarm[s3]'" in ran.stdout, ran.stderr
