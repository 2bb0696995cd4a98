"""PAPER.md names code and tests; all of it must be there."""

import pytest

import farm.methods.learnable_regions as method
from farm.methods.learnable_regions import config
from tests.farm.methods.papers import Paper

PAPER = Paper(method)


def test_the_map_is_not_empty():
    assert len(PAPER.code) > 25
    assert len(PAPER.tests) > 35


@pytest.mark.parametrize("path", PAPER.code)
def test_code_that_is_named_exists(path):
    PAPER.check_code(path)


@pytest.mark.parametrize("path", PAPER.tests)
def test_tests_that_are_named_exist(path):
    PAPER.check_test(path)


def numbers_of(kind):
    """Fields of a configuration and of those inside it."""
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, config.BaseModel):
            yield from () if inner is config.Quirks else numbers_of(inner)
        else:
            yield name


def test_every_number_of_the_configuration_is_accounted_for():
    assert set(numbers_of(config.LearnableRegionsConfig)) <= PAPER.named_in("Numbers")


def test_every_quirk_is_in_the_table():
    assert set(config.Quirks.model_fields) <= PAPER.named_in("Quirks")


def test_every_deviation_is_marked_in_the_code():
    assert len(PAPER.deviations) == 11
    PAPER.check_deviations()
