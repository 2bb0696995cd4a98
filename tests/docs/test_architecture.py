"""docs/architecture.md says what the tree is: layers, files, functions."""

import ast
import re
import tomllib
from functools import cache

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURE = (ROOT / "docs" / "pictures" / "layers.svg").read_text(encoding="utf-8")
PACKAGES = ("jobs", "serve", "actors", "cluster", "farm")
_IN_FILE = re.compile(r"`((?:farm|actors|serve|jobs|cluster)/[\w/]+\.py)` `(\w+)`")
_ALONE = re.compile(r"(?<!\.py` )`([A-Za-z_]\w+)`")


@cache
def contract() -> list[list[str]]:
    """Layers inside `farm` from the top, as import-linter holds them."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (found,) = [c for c in tools["importlinter"]["contracts"] if c.get("containers") == ["farm"]]
    return [re.findall(r"\w+", layer) for layer in found["layers"]]


@cache
def defined(file) -> set[str]:
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_the_layers_of_farm_are_those_of_the_contract_from_the_top():
    start = PAGE.index("Inside `farm`")
    text = PAGE[start : PAGE.index("## The walk")]
    named = [name for name in re.findall(r"`(\w+)`", text) if name != "farm"]
    depth = {name: number for number, layer in enumerate(contract()) for name in layer}
    assert set(named) == set(depth)
    assert [depth[name] for name in named] == sorted(depth[name] for name in named)


def test_the_picture_of_the_layers_is_the_contract():
    drawn = [re.findall(r"\w+", text) for text in re.findall(r'font-size="13">([^<]+)<', PICTURE)]
    assert [set(layer) for layer in drawn] == [set(layer) for layer in contract()]


def test_every_package_has_its_row():
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == set(PACKAGES)
    assert all((ROOT / name / "__init__.py").is_file() for name in rows)


@pytest.mark.parametrize(("file", "name"), _IN_FILE.findall(PAGE))
def test_what_is_named_with_its_file_is_in_it(file, name):
    assert name in defined(ROOT / file), f"{file} has no {name}"


def test_what_is_named_alone_is_somewhere():
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    everywhere = set().union(*map(defined, files), PACKAGES, *contract())
    named = set(_ALONE.findall(PAGE)) | {name for _, name in _IN_FILE.findall(PAGE)}
    assert len(named) > 40
    assert named <= everywhere, named - everywhere
