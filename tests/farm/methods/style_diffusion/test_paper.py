"""PAPER.md names code and tests; all of it must be there."""

import importlib
import re
from pathlib import Path

import pytest

import farm.methods.style_diffusion as method
from farm.methods.style_diffusion import config

FOLDER = Path(method.__path__[0])
PAPER = (FOLDER / "PAPER.md").read_text()
HERE = Path(__file__).parent
PARITY = HERE.parents[2] / "parity"

CODE = sorted(set(re.findall(r"`([a-z_.]+:[A-Za-z_.]+)`", PAPER)))
TESTS = sorted(set(re.findall(r"`(test_[a-z_]+::test_[a-z_0-9]+)`", PAPER)))


def test_the_map_is_not_empty():
    assert len(CODE) > 15
    assert len(TESTS) > 15


@pytest.mark.parametrize("path", CODE)
def test_code_that_is_named_exists(path):
    module, names = path.split(":")
    root = "" if module.startswith("farm.") else f"{method.__name__}."
    found = importlib.import_module(root + module)
    for name in names.split("."):
        fields = getattr(found, "model_fields", {})
        assert hasattr(found, name) or name in fields, path
        found = getattr(found, name, None)


@pytest.mark.parametrize("path", TESTS)
def test_tests_that_are_named_exist(path):
    module, name = path.split("::")
    files = [folder / f"{module}.py" for folder in (HERE, PARITY, HERE.parents[1] / "samplers")]
    texts = [file.read_text() for file in files if file.is_file()]
    assert any(f"def {name}(" in text for text in texts), path


def test_every_number_of_the_configuration_is_accounted_for():
    numbers = PAPER.split("## Numbers")[1].split("## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", numbers))
    fields = set(config.InversionConfig.model_fields) | set(config.EditingConfig.model_fields)
    assert fields <= named


def test_every_deviation_is_marked_in_the_code():
    code = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    for number in re.findall(r"^\*\*(D\d+)\*\*", PAPER, flags=re.MULTILINE):
        assert re.search(rf"\b{number}\b", code), f"{number} is not marked at its line"
