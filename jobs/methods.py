"""What methods there are, and what may be set of each: ranges, effects, defaults.

editfarm methods list
editfarm methods show style_diffusion
editfarm methods show learnable_regions --model-set models/mine --json
editfarm methods page > docs/options.md
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from farm.errors import InvalidRequestError
from farm.requests import METHODS
from farm.requests.options import options_of, request_classes
from farm.requests.parsing import near_names
from farm.zoo.model_sets import ModelSet, open_model_set
from jobs.console import (
    FarmCommand,
    JsonOption,
    ModelSetOption,
    command_app,
    print_json,
    print_table,
)

_HEAD = """\
# Every parameter of every method

Written by `editfarm methods page`, from the requests themselves. They are `parameters` of a request
or of a manifest's line, `--param NAME=VALUE` on the command line, `parameters={…}` in Python.
Defaults are those of the embedded scenes, and of models with the papers' own; those of a model set
of yours: `editfarm methods show METHOD --model-set FOLDER`. What goes wrong with each method, and
what to set then, is in [choosing a method](choosing.md) and on the methods' own pages.
"""

app = command_app("List methods, and what may be set of each.")


@app.command("list", cls=FarmCommand)
def list_methods(as_json: JsonOption = False) -> None:
    """List the methods."""
    table = Table("method", "does", box=None)
    for method in METHODS:
        about = summary(method)
        if as_json:
            print_json({"method": method, "does": about, "parameters": len(options_of(method))})
        table.add_row(method, about)
    if not as_json:
        print_table(table)


@app.command(cls=FarmCommand)
def show(
    method: Annotated[str, typer.Argument(help="One of `editfarm methods list`.")],
    model_set: ModelSetOption = "scenes",
    as_json: JsonOption = False,
) -> None:
    """Show a method's parameters: what each takes, its default with this model set, its effect."""
    if method not in METHODS:
        near = near_names(method, METHODS)
        meant = f"; did you mean {near}?" if near else ""
        raise InvalidRequestError(f"no method {method!r}: there are {', '.join(METHODS)}{meant}")
    known = defaults(open_model_set(model_set), method)
    table = Table("parameter", "takes", "default", "effect", box=None)
    for option in options_of(method):
        default = known.get(option.name)
        if as_json:
            about = {"takes": option.takes, "default": default, "effect": option.effect}
            print_json({"parameter": option.name, **about})
        table.add_row(option.name, option.takes, _text(default), escape(option.effect))
    if not as_json:
        print_table(table)


@app.command(cls=FarmCommand)
def page() -> None:
    """Print docs/options.md: all parameters of all methods."""
    typer.echo(options_page(), nl=False)


def options_page() -> str:
    """The page of all parameters, as Markdown."""
    models = open_model_set("scenes")
    parts = [_HEAD]
    for method in METHODS:
        scenes, paper = defaults(models, method), paper_defaults(models, method)
        rows = [
            f"| `{option.name}` | {_cell(option.takes)} | {_cell(_text(scenes.get(option.name)))} "
            f"| {_cell(_text(paper.get(option.name)))} | {_cell(option.effect)} |\n"
            for option in options_of(method)
        ]
        head = "| parameter | takes | scenes | paper | effect |\n|---|---|---|---|---|\n"
        parts.append(f"\n## {method}\n\n{summary(method)}\n\n{head}{''.join(rows)}")
    return "".join(parts)


def summary(method: str) -> str:
    """A method's own sentence about itself."""
    return (request_classes()[method].__doc__ or "").partition("\n")[0]


def defaults(model_set: ModelSet, method: str) -> dict[str, Any]:
    """A model set's value of each parameter that a request may leave out."""
    return _flat(getattr(model_set, method, None)) | _own(method)


def paper_defaults(model_set: ModelSet, method: str) -> dict[str, Any]:
    """The same of models that have the paper's."""
    manifest = model_set.manifest.model_copy(update={"defaults": "paper"})
    return defaults(replace(model_set, manifest=manifest), method)


def _own(method: str) -> dict[str, Any]:
    """Defaults that requests themselves have, whatever the model set."""
    parameters: Any = request_classes()[method].model_fields["parameters"].default
    return {name: value for name, value in parameters if value not in (None, ())}


def _flat(config: Any) -> dict[str, Any]:
    """A configuration's values by name, whatever part of it they are in; the first found counts."""
    return {} if config is None else _flattened(config.model_dump(mode="json"))


def _flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        is_part = isinstance(value, dict)
        for inner, single in (_flattened(value) if is_part else {name: value}).items():
            found.setdefault(inner, single)
    return found


def _text(value: Any) -> str:
    match value:
        case None | [] | {}:
            return "–"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_text, value))
        case _:
            return str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    app()
