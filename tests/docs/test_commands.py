"""Every `editfarm …` that a page shows is one that the program takes."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.submission import Submission, run_submission
from tests.docs.blocks import PAGES, ROOT, block_commands, errors, inline_commands, parse
from tests.jobs.conftest import LINE, tiny_set, write_picture

__all__ = ["tiny_set"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page):
    wrong = []
    shown = [(one, one.is_whole) for one in block_commands() if one.page == page]
    named = [(one, False) for one in inline_commands() if one.page == page]
    for command, whole in shown + named:
        if command.line.split()[1].isupper():
            continue  # editfarm COMMAND --help
        try:
            parse(command.line, whole=whole)
        except Exception as error:  # noqa: BLE001 - whatever the program says of it
            wrong.append(f"{command.line}: {getattr(error, 'message', None) or error!r}")
    assert not wrong, "\n".join(wrong)


CHEAP = ("methods", "cluster", "models list", "edit --image examples", "edit-many")


@pytest.mark.parametrize(
    "line",
    [
        command.line
        for command in block_commands()
        if command.page == ROOT / "README.md"
        and command.line.removeprefix("editfarm ").startswith(CHEAP)
    ],
)
def test_commands_of_the_readme_run(line, tmp_path, monkeypatch):
    """What costs nothing is run as it stands; an edit is checked as a whole and not computed."""
    words = shlex.split(line)[1:] + (["--dry-run"] if line.split()[1].startswith("edit") else [])
    monkeypatch.chdir(ROOT)
    words = [str(tmp_path / word) if word.startswith("out/") else word for word in words]
    ran = CliRunner().invoke(app, words, prog_name="editfarm")
    assert ran.exit_code == 0, ran.output
    assert ran.output


@pytest.mark.parametrize(
    "line",
    [
        command.line
        for command in block_commands()
        if command.page == ROOT / "README.md" and command.line.endswith("--store out/store")
    ],
)
def test_what_the_readme_reads_of_a_store_is_there_to_read(line, tmp_path, tiny_set, monkeypatch):
    """As written, of a store in which one job is done."""
    write_picture(tmp_path / "a.png")
    (tmp_path / "edits.jsonl").write_text(json.dumps({"image": "a.png", **LINE}))
    monkeypatch.chdir(tmp_path)
    run_submission(Submission("edits.jsonl", "out/store", model_set=tiny_set, inline=True))
    ran = CliRunner().invoke(app, shlex.split(line)[1:], prog_name="editfarm")
    assert ran.exit_code == 0, ran.output
    assert "finished" in ran.output or "report.html" in ran.output


def test_there_are_commands_to_look_at():
    assert len(block_commands()) > 40
    assert len(inline_commands()) > 20


@pytest.mark.parametrize(
    "line",
    [
        "editfarm edti",
        "editfarm edit --image a.png --source a --target b --colour red",
        "editfarm edit --image a.png",
        "editfarm jobs lits",
        "editfarm edit-many --variations none --manifest a",
    ],
)
def test_a_wrong_command_would_be_found(line):
    with pytest.raises(errors.ClickException):
        parse(line, whole=True)
