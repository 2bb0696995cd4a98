"""PAPER.md names code and tests; all of it must be there."""

import importlib
import re
from pathlib import Path

import pytest

import farm.methods.edit_infinity as method
from farm.methods.edit_infinity import config

FOLDER = Path(method.__path__[0])
PAPER = (FOLDER / "PAPER.md").read_text()
HERE = Path(__file__).parent
PARITY = HERE.parents[2] / "parity"

CODE = sorted(set(re.findall(r"`([a-z_.]+:[A-Za-z_.]+)`", PAPER)))
TESTS = sorted(set(re.findall(r"`(test_[a-z_]+::test_[a-z_0-9]+)`", PAPER)))
SECTIONS = (
    config.OptimiserConfig,
    config.NoiseConfig,
    config.PromptConfig,
    config.LoraConfig,
    config.EditingConfig,
    config.EditInfinityConfig,
)


def test_the_map_is_not_empty():
    assert len(CODE) > 15
    assert len(TESTS) > 15


@pytest.mark.parametrize("path", CODE)
def test_code_that_is_named_exists(path):
    module, names = path.split(":")
    found = importlib.import_module(f"{method.__name__}.{module}")
    for name in names.split("."):
        assert hasattr(found, name), path
        found = getattr(found, name)


@pytest.mark.parametrize("path", TESTS)
def test_tests_that_are_named_exist(path):
    module, name = path.split("::")
    files = [folder / f"{module}.py" for folder in (HERE, PARITY)]
    assert any(f"def {name}(" in file.read_text() for file in files if file.is_file()), path


def test_every_number_of_the_configuration_is_accounted_for():
    numbers = PAPER.split("## Numbers")[1].split("## ")[0]
    named = set(re.findall(r"`([a-z_0-9]+)`", numbers))
    parts = {"optimiser", "noise", "prompt", "lora", "editing"}
    fields = {name for section in SECTIONS for name in section.model_fields} - parts
    assert fields <= named


def test_every_deviation_is_marked_in_the_code():
    code = "".join(path.read_text() for path in FOLDER.glob("*.py"))
    for number in re.findall(r"^\*\*(D\d+)\*\*", PAPER, flags=re.MULTILINE):
        assert re.search(rf"\b{number}\b", code), f"{number} is not marked at its line"
