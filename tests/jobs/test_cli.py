import importlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from farm.errors import FarmError, InvalidPromptError, StoreError
from jobs.cli import JOBS, app
from jobs.console import FarmCommand, command_app

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", JOBS)
def test_every_command_is_there_and_says_what_the_list_says(name):
    module = importlib.import_module(JOBS[name].module)
    assert isinstance(module.app, typer.Typer)
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert JOBS[name].help.split()[0] in result.output


def test_help_is_quick_because_it_imports_neither_torch_nor_ray():
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from jobs.cli import app\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0 and 'edit-many' in result.output, result.output\n"
        "print(sorted({'torch', 'ray', 'numpy', 'boto3', 'pydantic'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.strip() == "[]", run.stderr


def test_version_and_exit_codes_are_shown():
    version = CliRunner().invoke(app, ["--version"])
    assert version.output.startswith(f"editfarm {metadata.version('editfarm')} (commit ")
    text = CliRunner().invoke(app, ["--help"]).output
    for code in ("0", "1", "2", "3", "130"):
        assert re.search(rf"^\s*{code}  ", text, re.MULTILINE), code


@pytest.mark.parametrize("arguments", [["edti"], ["edit"], ["edit", "--colour"], ["edit-many"]])
def test_a_wrong_command_line_is_exit_code_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (InvalidPromptError("too long [red]by far[/red]"), 2),
        (StoreError("cannot write"), 3),
        (FarmError("something"), 1),
    ],
)
def test_a_farm_error_is_one_line_and_its_own_exit_code(error, exit_code):
    failing = command_app()

    @failing.command(cls=FarmCommand)
    def fail() -> None:
        raise error

    result = CliRunner().invoke(failing, [])
    assert result.exit_code == exit_code
    assert result.stderr == f"error: {error.message} ({type(error).__name__})\n"


def test_the_documented_commands_are_the_commands():
    text = (ROOT / "docs" / "cli.md").read_text()
    documented = set(re.findall(r"^\| `editfarm ([a-z-]+)", text, re.MULTILINE))
    assert documented == set(JOBS)
