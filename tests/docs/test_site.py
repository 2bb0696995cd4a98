"""The site builds without a warning and asks no other machine for anything."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.docs.blocks import ROOT

_ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\s>]+"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*href=[\"']?(?:https?:)?//[^\s>]+"
    r"|url\([\"']?(?:https?:)?//[^)]+\)|@import[^;]*//[^;]+"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def test_every_page_is_there_and_refers_to_nothing_elsewhere(site):
    pages = list(site.rglob("*.html"))
    written = list((ROOT / "docs").rglob("*.md"))
    assert len(pages) >= len(written)
    for file in [*pages, *site.rglob("*.css")]:
        assert not _ELSEWHERE.findall(file.read_text(encoding="utf-8")), file


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text))
    assert yaml.safe_load(text)["theme"]["font"] is False
    missing = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert missing <= named, missing - named
