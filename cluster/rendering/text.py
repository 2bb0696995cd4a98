"""How rendered files are written: stable, and saying where they come from."""

import json
from typing import Any

import yaml

HEADER = "# Rendered by `editfarm cluster render`: change cluster/*.py, not this file.\n"


_WIDTH = 10_000  # a command stays one line


class _Dumper(yaml.SafeDumper):
    """Indents lists, writes texts of several lines as blocks, and never uses anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def plain_yaml(document: Any) -> str:
    """YAML without a header: for a text inside another document."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def yaml_text(*documents: Any, comment: str = "") -> str:
    """YAML of one or several documents, keys in the order given."""
    body = yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True
    )
    return HEADER + "".join(f"# {line}\n" for line in comment.splitlines()) + body


def json_text(document: Any) -> str:
    """JSON with a last line break; it cannot hold a comment."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
