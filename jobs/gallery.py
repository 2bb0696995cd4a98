"""One picture of some edits of a store: before, after, where it was edited, where it was looked at.

    editfarm gallery --edit out/store:3f9a12bc --edit out/store:77e0d1aa --output gallery.png
    python -m jobs.gallery --edit s3://bucket/edits:3f9a12bc --output gallery.png

An edit is its store and its id, or the beginning of it (`editfarm artifacts list`). The picture at
the top of the README is made by this.
"""

import io
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from farm.errors import InvalidRequestError
from farm.runner import load_output, load_result
from farm.runner.artifacts import find_artifact
from farm.storage.layout import input_key
from farm.storage.opening import open_store
from jobs.console import FarmCommand, command_app, say, write_file
from jobs.records import TENANT

_SIDE, _GAP, _HEAD = 160, 8, 26
_COLUMNS = ("before", "after", "mask", "attention")
_TEXT = "editfarm:target_prompt"  # as `farm.runner` writes it into edited.png

app = command_app()


@app.command(cls=FarmCommand)
def gallery(
    edit: Annotated[list[str], typer.Option(metavar="STORE:ID", help="An edit to show.")],
    output: Annotated[Path, typer.Option(help="PNG file to write.")],
    across: Annotated[int, typer.Option(min=1, max=4, help="Edits beside each other.")] = 1,
    tenant: Annotated[str, typer.Option(help="Whose edits.")] = TENANT,
) -> None:
    """Make one picture of some edits: before, after, mask, attention."""
    sheets = [draw_edit(text, tenant) for text in edit]
    buffer = io.BytesIO()
    joined(sheets, across).save(buffer, format="PNG", optimize=True)
    write_file(output, buffer.getvalue())
    say(f"{len(sheets)} edits: {output}")


def draw_edit(text: str, tenant: str) -> Image.Image:
    """One edit as a row of pictures below its method and its target prompt.

    Raises:
        InvalidRequestError: no `STORE:ID`, or there is no such edit.
        StoreError: the store cannot be read.
    """
    address, colon, name = text.rpartition(":")
    if not colon or not address:
        raise InvalidRequestError(f"found {text!r}, expected STORE:ID, as out/store:3f9a12bc")
    store = open_store(address)
    _, edit_id = find_artifact(store, tenant, name)
    result = load_result(store, tenant, edit_id)
    if result is None:
        raise InvalidRequestError(f"{name} is no edit of {address}: `editfarm artifacts list`")
    made = result.provenance
    edited = Image.open(io.BytesIO(load_output(store, result, "edited.png")))
    target = str(edited.info.get(_TEXT, ""))
    pictures: dict[str, Image.Image] = {
        "before": Image.open(io.BytesIO(store.get(input_key(tenant, made.image_digest)))),
        "after": edited,
    }
    for column in _COLUMNS[2:]:
        if f"{column}.png" in result.files:
            data = load_output(store, result, f"{column}.png")
            pictures[column] = Image.open(io.BytesIO(data))
    return draw_row(f"{made.method.replace('_', ' ')}:  “{target}”", pictures)


def draw_row(title: str, pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures side by side, each below its name; what is missing stays white."""
    width = len(_COLUMNS) * (_SIDE + _GAP) + _GAP
    row = Image.new("RGB", (width, 2 * _HEAD + _SIDE), "white")
    pen = ImageDraw.Draw(row)
    pen.text((_GAP, 6), title, fill="black", font=_font(_fitting(title, width)))
    for number, column in enumerate(_COLUMNS):
        left = _GAP + number * (_SIDE + _GAP)
        found = pictures.get(column)
        if found is None:
            continue
        pen.text((left, _HEAD + 4), column, fill="#666", font=_font(13))
        row.paste(_squared(found), (left, 2 * _HEAD - 4))
    return row


def joined(rows: list[Image.Image], across: int) -> Image.Image:
    """All rows on one sheet, `across` of them beside each other."""
    lines = -(-len(rows) // across)
    width, height = rows[0].size
    sheet = Image.new("RGB", (min(across, len(rows)) * width, lines * height), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (number % across * width, number // across * height))
    return sheet


def _squared(picture: Image.Image) -> Image.Image:
    """As large as fits, small ones without smoothing."""
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(picture.convert("RGB").resize(size, how))
    return square


def _fitting(title: str, width: int) -> int:
    """The largest size of letters in which the title fits."""
    for size in range(16, 9, -1):
        if _font(size).getlength(title) <= width - 2 * _GAP:
            return size
    return 9


def _font(size: int) -> FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, FreeTypeFont)  # Pillow's own, where a size is asked for
    return font


if __name__ == "__main__":
    app()
