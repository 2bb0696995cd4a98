"""Make docs/quality.md again from the evaluations in out/quality.

    python -m jobs.quality_page --from out/quality --output docs/quality.md

What people wrote about the figures is in `jobs/templates/quality.md.j2`; every number in a table
comes from the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from jinja2 import Environment, PackageLoader, StrictUndefined

from farm.errors import InvalidRequestError
from jobs.console import FarmCommand, command_app, say, write_file
from jobs.evaluation import scenes_run
from jobs.evaluation.page import (
    NOT_MEASURED,
    Record,
    arms_table,
    choice_table,
    differences_table,
    pie_table,
    published_table,
    read_records,
    types_table,
)
from jobs.evaluation.sheets import LARGEST
from jobs.evaluation.tradeoff import draw_tradeoff

app = command_app()

LINES = {
    "style_diffusion": {"colour": 0.8, "pattern": 0.65, "background": 0.8, "shape": 0.55},
    "edit_infinity": {"all": 0.7, "colour": 0.8},
    "learnable_regions": {"colour": 0.8, "shape": 0.8},
}
"""Shares of success that methods were set, by type of edit; `all` is over all types."""
_PICTURES = "pictures"


@app.command(cls=FarmCommand)
def quality_page(
    source: Annotated[
        Path, typer.Option("--from", help="Folder of `editfarm evaluate --json`.")
    ] = Path("out/quality"),
    output: Annotated[Path, typer.Option(help="The page; pictures lie beside it.")] = Path(
        "docs/quality.md"
    ),
) -> None:
    """Write the page of figures, with its pictures, from what was measured."""
    records = read_records(source)
    if not records:
        raise InvalidRequestError(
            f"no evaluations in {source}: run `editfarm evaluate --json` first"
        )
    pictures = _copy_pictures(source / _PICTURES, output.parent / _PICTURES)
    figures = _draw_figures(records, output.parent / _PICTURES)
    write_file(output, render(records, pictures, figures).encode())
    say(f"wrote {output} from {len(records)} evaluations")


def render(
    records: Sequence[Record], pictures: Sequence[str] = (), figures: Sequence[str] = ()
) -> str:
    """The page as Markdown.

    Args:
        records: of the evaluations.
        pictures: files of sheets in the page's `pictures`.
        figures: files of graphs there.
    """
    environment = Environment(
        loader=PackageLoader("jobs"),
        autoescape=False,  # noqa: S701 -- Markdown of our own numbers, no HTML of others
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scenes = [record for record in records if not record.is_pie]

    def of(name: str) -> Record | None:
        """A file by its name, or the first whose first method that is."""
        named = [record for record in scenes if record.name == name]
        return (named or [record for record in scenes if record.method == name] or [None])[0]

    def section(method: str) -> str:
        record = of(method)
        if record is None:
            return NOT_MEASURED
        return f"{_command(record)}\n\n{types_table(record, LINES.get(method))}"

    helpers: dict[str, Any] = {
        "section": section,
        "compared": lambda name: _of(of(name), differences_table),
        "choice": lambda: _of(_with_auto(scenes), choice_table),
        "all_arms": arms_table(records),
        "several": [_several(record) for record in scenes if len(record.arms) > 1],
        "pie": [(r.name, f"{_command(r)}\n\n{pie_table(r)}") for r in records if r.is_pie],
        "published": published_table(),
        "pictures": pictures,
        "figures": figures,
    }
    return environment.get_template("quality.md.j2").render(**helpers)


def _of(record: Record | None, table: Any) -> str:
    return NOT_MEASURED if record is None else table(record)


def _with_auto(records: Sequence[Record]) -> Record | None:
    return next((record for record in records if "auto" in record.arms), None)


def _several(record: Record) -> dict[str, str]:
    return {
        "name": record.name,
        "command": _command(record),
        "differences": differences_table(record),
    }


def _command(record: Record) -> str:
    """The command, and where it ran; of paths of that machine their last part, or that in out/."""
    about = record.provenance
    words = [_portable(word) for word in about["command"].split(" ")]
    return (
        f"    {' '.join(words)}\n\nSeed {about['seed']}, {about['machine'].split(',')[1].strip()}."
    )


def _portable(word: str) -> str:
    if not word.startswith("/"):
        return word
    before, found, after = word.partition("/out/")
    return f"out/{after}" if found else before.rpartition("/")[2]


def _copy_pictures(source: Path, target: Path) -> list[str]:
    """Sheets of pictures beside the page; their new names."""
    found: list[str] = []
    for path in sorted(source.glob("*.png")) if source.is_dir() else []:
        data = path.read_bytes()
        if len(data) > LARGEST:
            raise InvalidRequestError(
                f"{path} has {len(data):,} bytes, at most {LARGEST:,} belong into the repository: "
                "let `editfarm evaluate --pictures` write it again"
            )
        name = f"quality-{path.name}"
        write_file(target / name, data)
        found.append(name)
    return found


def _draw_figures(records: Sequence[Record], target: Path) -> list[str]:
    """Quality against seconds of every record with several arms; names of the files."""
    found: list[str] = []
    for record in records:
        if record.is_pie or len(record.arms) < 2 or "method" not in record.provenance:
            continue
        points = scenes_run.points(record.data)
        if all(point.seconds <= 0 for point in points):
            continue  # found in a store that tells no costs: nothing to draw
        name = f"quality-{record.name}.svg"
        write_file(target / name, draw_tradeoff(points).encode())
        found.append(name)
    return found


if __name__ == "__main__":
    app()
