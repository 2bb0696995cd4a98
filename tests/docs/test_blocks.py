"""Blocks of the pages: data parses, code compiles, and what is cheap is run as written."""

import ast
import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks

OURS = ("farm", "actors", "serve", "jobs", "cluster")
RUN = ("README.md", "python.md")
"""Pages whose Python runs here; http.md's runs in tests/serve."""


@pytest.mark.parametrize("block", blocks("json", "jsonl"), ids=str)
def test_json_parses(block):
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("block", blocks("yaml", "yml"), ids=str)
def test_yaml_parses(block):
    assert list(yaml.safe_load_all(block.text))


@pytest.mark.parametrize("block", blocks("csv"), ids=str)
def test_csv_is_rectangular(block):
    assert len({len(row) for row in csv.reader(block.text.splitlines())}) == 1


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_python_and_what_it_imports_of_ours_is_there(block):
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            names = ", ".join(alias.name for alias in node.names)
            exec(f"from {node.module} import {names}", {})


@pytest.mark.parametrize("block", blocks("bash", "sh"), ids=str)
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
