"""Each PAPER.md names code and tests; all of it must be there."""

import pytest

import farm.methods.edit_infinity
import farm.methods.learnable_regions
import farm.methods.style_diffusion
from tests.farm.methods.papers import Paper

PAPERS = [
    Paper(farm.methods.edit_infinity),
    Paper(farm.methods.learnable_regions),
    Paper(farm.methods.style_diffusion),
]
CODE = [(paper, path) for paper in PAPERS for path in paper.code]
TESTS = [(paper, path) for paper in PAPERS for path in paper.tests]


def name(value):
    return value.folder.name if isinstance(value, Paper) else value


@pytest.mark.parametrize("paper", PAPERS, ids=name)
def test_the_map_is_not_empty(paper):
    assert len(paper.code) > 15
    assert len(paper.tests) > 15


@pytest.mark.parametrize(("paper", "path"), CODE, ids=name)
def test_code_that_is_named_exists(paper, path):
    paper.check_code(path)


@pytest.mark.parametrize(("paper", "path"), TESTS, ids=name)
def test_tests_that_are_named_exist(paper, path):
    paper.check_test(path)


@pytest.mark.parametrize("paper", PAPERS, ids=name)
def test_every_deviation_is_marked_in_the_code(paper):
    assert len(paper.deviations) > 8
    paper.check_deviations()
