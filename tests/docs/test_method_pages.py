"""Each method's page: what it does, when to choose it, what to set, how it fails, what is ours."""

import re

import pytest

from farm.requests.options import options_of
from tests.docs.blocks import ROOT

METHODS = ("style_diffusion", "learnable_regions", "edit_infinity")
SECTIONS = (
    "What it does",
    "When to choose it",
    "What may be set",
    "When it goes wrong",
    "What is ours",
)


def sections(method: str) -> dict[str, str]:
    page = (ROOT / "docs" / f"{method}.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    return {head: text for head, _, text in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("method", METHODS)
def test_it_has_every_section_in_order(method):
    found = [head for head in sections(method) if head in SECTIONS]
    assert tuple(found) == SECTIONS


@pytest.mark.parametrize("method", METHODS)
def test_failures_are_shown(method):
    assert re.search(r"!\[[^\]]+\]\(pictures/[\w-]+\.png\)", sections(method)["When it goes wrong"])


@pytest.mark.parametrize("method", METHODS)
def test_what_may_be_set_is_set_so(method):
    """Names in the first column of its table, and in what to do when it goes wrong."""
    known = {option.name for option in options_of(method)}
    own = sections(method)
    rows = re.findall(r"^\| (`.+?) \|", own["What may be set"], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    named |= set(re.findall(r"`(\w+)=", own["When it goes wrong"]))
    assert len(named) > 4
    assert named <= known, named - known
    assert f"(options.md#{method})" in own["What may be set"]


@pytest.mark.parametrize("method", METHODS)
def test_every_deviation_of_the_paper_is_told(method):
    paper = (ROOT / "farm" / "methods" / method / "PAPER.md").read_text(encoding="utf-8")
    deviations = set(re.findall(r"^\*\*(D\d+)\*\*", paper, re.MULTILINE))
    told = set(re.findall(r"D\d+", sections(method)["What is ours"]))
    assert len(deviations) > 8
    assert told == deviations
