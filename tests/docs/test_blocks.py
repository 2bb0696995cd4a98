"""Blocks of the pages: data parses, code compiles, and what is cheap is run as written."""

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from farm.requests import parse_request
from jobs.importers import Reading, form_of
from jobs.manifests import BrokenLine
from tests.docs.blocks import ROOT, all_blocks, blocks
from tests.jobs.conftest import write_picture

OURS = ("farm", "actors", "serve", "jobs", "cluster")
RUN = ("README.md", "python.md")
"""Pages whose Python runs here; http.md's runs in tests/serve."""


def test_every_language_of_a_block_is_looked_at():
    known = {"", "text", "bash", "json", "jsonl", "csv", "python"}
    assert {block.language for block in all_blocks()} == known


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_parses_and_what_is_a_request_is_one(block):
    found = json.loads(block.text)
    if "source_prompt" in found:
        parse_request({"model_set": "scenes", **found})


@pytest.mark.parametrize("block", blocks("jsonl", "csv"), ids=str)
def test_lines_of_manifests_are_edits(block, tmp_path):
    """Read by the importer of the form that the page speaks of."""
    path = tmp_path / f"shown.{block.language}"
    path.write_text(block.text)
    (tmp_path / "images").mkdir()
    write_picture(tmp_path / "images" / "ball.png")  # which one form looks for at once
    form = "style-diffusion" if "case_number" in block.text else form_of(path.name)
    lines = list(Reading(form).lines(path, model_set="scenes"))
    assert lines
    assert not [line.error for line in lines if isinstance(line, BrokenLine)]


@pytest.mark.parametrize(
    "block", [one for one in blocks("json") if one.page.name == "learnable_regions.md"], ids=str
)
def test_entries_of_images_json_are_edits(block, tmp_path):
    entries = json.loads(block.text)
    (tmp_path / "images.json").write_text(block.text)
    for name in entries:
        write_picture(tmp_path / name)
    lines = list(Reading("learnable-regions").lines(tmp_path / "images.json", model_set="scenes"))
    assert [line.request.source_prompt for line in lines] == [e[0] for e in entries.values()]


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_python_and_what_it_imports_of_ours_is_there(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names = ", ".join(alias.name for alias in node.names)
            exec(f"from {node.module} import {names}", {})


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_bash_is_bash(block):
    ran = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the examples and nothing else, as the pages take it to be."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "examples").symlink_to(ROOT / "examples")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize(
    "block", [block for block in blocks("python") if block.page.name in RUN], ids=str
)
def test_python_runs_as_written(desk, block, capsys):
    names = {}
    exec(compile(block.text, str(block.page), "exec"), names)
    if "result" in names:
        assert names["result"].edited.size == names["result"].before.size
    else:
        assert "did you mean tau_v" in capsys.readouterr().out
