"""The whole command line, walked: each command has help, an example that parses, JSON to read."""

import importlib.metadata
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from jobs.cli import JOBS, app
from jobs.version import git, version_text
from tests.docs.blocks import ROOT, leaves, parse

READING = {
    "jobs list",
    "jobs show",
    "artifacts list",
    "methods list",
    "methods show",
    "models list",
    "models check",
    "keys list",
    "cluster nodes",
    "status",
    "top",
    "doctor",
    "edit",
    "edit-many",
    "report",
    "gc",
}
COSTLY = {"edit", "edit-many", "evaluate", "gc", "models pull", "zoo train"}
LEAVES = [" ".join(path) for path, _ in leaves()]


def help_of(name: str) -> str:
    ran = CliRunner().invoke(app, [*name.split(), "--help"], prog_name="editfarm")
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("name", LEAVES)
def test_help_says_what_it_does_and_shows_an_example_that_parses(name):
    shown = help_of(name)
    examples = re.findall(r"^ *\$ (editfarm (?:.|\n(?! *\n))*)", shown, re.MULTILINE)
    own = [" ".join(text.split()) for text in examples]
    assert own, f"no example: name one in the docstring of the module of {name!r}"
    for line in own:
        assert f"{line} ".startswith(f"editfarm {name} "), line
        parse(line, whole="…" not in line)


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_says_what_it_is(name):
    (command,) = [command for path, command in leaves() if " ".join(path) == name]
    silent = [
        option.opts[0]
        for option in command.params
        if hasattr(option, "help") and not option.help and not option.hidden
    ]
    assert not silent, f"{name}: {silent}"


@pytest.mark.parametrize("name", sorted(READING))
def test_what_reads_has_json(name):
    assert "--json" in help_of(name)


@pytest.mark.parametrize("name", sorted(COSTLY))
def test_what_costs_can_be_tried_dry(name):
    assert "--dry-run" in help_of(name)


def test_the_walk_went_everywhere():
    assert {name.split()[0] for name in LEAVES} == set(JOBS)
    assert set(LEAVES) >= READING


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["edti"], "'edit'"),
        (["artefacts"], "'artifacts'"),
        (["jobs", "lits"], "'list'"),
        (["edit", "--targte", "x"], "--target"),
        (["methods", "show", "style_difusion"], "style_diffusion"),
    ],
)
def test_a_slip_of_the_finger_is_answered_with_what_was_meant(words, meant):
    ran = CliRunner().invoke(app, words, prog_name="editfarm")
    assert ran.exit_code == 2
    assert meant in ran.output


def test_the_version_says_what_this_is_and_computes_with():
    first, second = version_text().splitlines()
    assert first.startswith(f"editfarm {importlib.metadata.version('editfarm')} (commit ")
    commit = git(ROOT, "rev-parse", "--short=12", "HEAD")
    assert commit is None or commit in first
    for name in ("torch", "ray"):
        assert f"{name} {importlib.metadata.version(name)}" in second
    assert f"python {sys.version.split()[0]}" in second


def test_completion_knows_commands_and_options():
    environment = {
        "_EDITFARM_COMPLETE": "complete_bash",
        "COMP_WORDS": "editfarm gal",
        "COMP_CWORD": "1",
        "PATH": "/usr/bin:/bin",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.cli"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert ran.stdout.split() == ["gallery"], ran.stderr


def test_no_color_is_heard():
    code = (
        "from farm.errors import FarmError\n"
        "from jobs.console import say_error\n"
        "say_error(FarmError('x'))"
    )
    for extra, coloured in (({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False)):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "/usr/bin:/bin", "TERM": "xterm", **extra},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert ("\x1b[" in run.stderr) == coloured, run.stderr
