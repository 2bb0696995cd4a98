"""Links lead somewhere, and files that pages name are there."""

import re

import pytest

from tests.docs.blocks import PAGES, ROOT

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE_FILE = re.compile(
    r"`((?:farm|actors|serve|jobs|cluster|tests|benchmarks)/[\w/.-]+\.\w+|"
    r"(?:farm|actors|serve|jobs|cluster|tests|benchmarks)/(?:[\w.-]+/)+)`"
)


def _text(page) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page) -> set[str]:
    """Ids of a page's headings, as both GitHub and mkdocs make them of plain words."""
    heads = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", head.lower()).strip() for head in heads]
    return {re.sub(r"\s+", "-", head) for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    wrong = []
    for link in _LINK.findall(_text(page)):
        if re.match(r"https?://|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading; there are {sorted(anchors(target))}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_program_that_are_named_exist(page):
    named = set(_CODE_FILE.findall(_text(page))) - {"farm/utils.py"}  # which decision 1 forbids
    wrong = [name for name in named if not (ROOT / name).exists()]
    assert not wrong, wrong
