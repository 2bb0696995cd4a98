"""Every `editfarm …` that a page shows is one that the program takes."""

import pytest

from tests.docs.blocks import PAGES, ROOT, block_commands, errors, inline_commands, parse


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
