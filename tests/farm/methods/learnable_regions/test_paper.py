"""PAPER.md names code and tests; all of it must be there."""

import importlib
import re
from pathlib import Path

import pytest

import farm.methods.learnable_regions as method
from farm.methods.learnable_regions import config

FOLDER = Path(method.__path__[0])
PAPER = (FOLDER / "PAPER.md").read_text()
HERE = Path(__file__).parent
TREE = HERE.parents[2]

CODE = sorted(set(re.findall(r"`([a-z_.]+:[A-Za-z_.]+)`", PAPER)))
TESTS = sorted(set(re.findall(r"`(test_[a-z_]+::test_[a-z_0-9]+)`", PAPER)))


def test_the_map_is_not_empty():
    assert len(CODE) > 25
    assert len(TESTS) > 35


@pytest.mark.parametrize("path", CODE)
def test_code_that_is_named_exists(path):
    module, names = path.split(":")
    root = "" if module.startswith("farm.") else f"{method.__name__}."
    found = importlib.import_module(root + module)
    for name in names.split("."):
        assert hasattr(found, name), path
        found = getattr(found, name)


@pytest.mark.parametrize("path", TESTS)
def test_tests_that_are_named_exist(path):
    module, name = path.split("::")
    folders = [HERE, TREE / "parity", TREE / "farm" / "losses", TREE / "farm" / "backbones"]
    files = [folder / f"{module}.py" for folder in folders]
    texts = [file.read_text() for file in files if file.is_file()]
    assert any(f"def {name}(" in text for text in texts), path


def numbers_of(kind):
    """Fields of a configuration and of those inside it."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, config.BaseModel):
            yield from () if inner is config.Quirks else numbers_of(inner)
        else:
            yield name


def test_every_number_of_the_configuration_is_accounted_for():
    numbers = PAPER.split("## Numbers")[1].split("## ")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", numbers))
    assert set(numbers_of(config.LearnableRegionsConfig)) <= named


def test_every_quirk_is_in_the_table():
    quirks = PAPER.split("## Quirks")[1].split("## ")[0]
    assert set(config.Quirks.model_fields) <= set(re.findall(r"`([a-z_]+)`", quirks))


def test_every_deviation_is_marked_in_the_code():
    code = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    deviations = re.findall(r"^\*\*(D\d+)\*\*", PAPER, flags=re.MULTILINE)
    assert len(deviations) == 11
    for number in deviations:
        assert re.search(rf"\b{number}\b", code), f"{number} is not marked at its line"
