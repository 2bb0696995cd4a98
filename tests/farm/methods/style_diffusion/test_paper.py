"""PAPER.md names code and tests; all of it must be there."""

import pytest

import farm.methods.style_diffusion as method
from farm.methods.style_diffusion import config
from tests.farm.methods.papers import Paper

PAPER = Paper(method)


def test_the_map_is_not_empty():
    assert len(PAPER.code) > 15
    assert len(PAPER.tests) > 15


@pytest.mark.parametrize("path", PAPER.code)
def test_code_that_is_named_exists(path):
    PAPER.check_code(path)


@pytest.mark.parametrize("path", PAPER.tests)
def test_tests_that_are_named_exist(path):
    PAPER.check_test(path)


def test_every_number_of_the_configuration_is_accounted_for():
    fields = set(config.InversionConfig.model_fields) | set(config.EditingConfig.model_fields)
    assert fields <= PAPER.named_in("Numbers")


def test_every_deviation_is_marked_in_the_code():
    PAPER.check_deviations()
