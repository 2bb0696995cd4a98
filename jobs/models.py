"""List model sets, check their weights against their digests, convert released checkpoints.

editfarm models list
python -m jobs.models check --model-set scenes
editfarm models convert infinity_2b_reg.pth models/mine
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from farm.backbones.infinity.convert import Precision, convert_checkpoint
from farm.backbones.infinity.schedules import Size
from farm.zoo.infinity_sets import state_infinity
from farm.zoo.model_sets import ModelSet, list_model_sets, open_model_set
from jobs.console import (
    FarmCommand,
    JsonOption,
    ModelSetOption,
    command_app,
    print_json,
    print_table,
    say,
)

app = command_app("List, check and convert models.")


@app.command("list", cls=FarmCommand)
def list_command(
    model_set: Annotated[
        list[str] | None, typer.Option(help="Also this folder; may be given again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The model sets that are at hand."""
    found = [*list_model_sets(), *map(open_model_set, model_set or [])]
    if as_json:
        for one in found:
            print_json(_record(one))
        return
    table = Table("name", "networks", "size", "image", "tokens", "folder", box=None)
    for one in found:
        size = sum((one.folder / name).stat().st_size for name in one.digests)
        table.add_row(
            one.name,
            str(len(one.digests)),
            f"{size / 1e6:.1f} MB",
            f"{one.spec.image_size} px",
            str(one.spec.tokens),
            str(one.folder),
        )
    print_table(table)


@app.command("check", cls=FarmCommand)
def check_command(model_set: ModelSetOption = "scenes", as_json: JsonOption = False) -> None:
    """Compare every weight file with its digest."""
    found = open_model_set(model_set)
    found.verify()
    if as_json:
        print_json({**_record(found), "verified": True})
    else:
        say(f"{found.name}: {len(found.digests)} weight files are as they should be")


@app.command("convert", cls=FarmCommand)
def convert_command(
    source: Annotated[Path, typer.Argument(help="A released Infinity or BSQ file, or shards.")],
    folder: Annotated[Path, typer.Argument(help="Model-set folder to write into.")],
    precision: Annotated[Precision, typer.Option(help="Of a transformer's matrices.")] = "bf16",
    size: Annotated[Size, typer.Option(help="Of the transformer's pictures.")] = "1M",
    as_json: JsonOption = False,
) -> None:
    """Write a released checkpoint as safetensors, which are memory-mapped ever after."""
    done = convert_checkpoint(source, folder, precision, named=True)
    stated = state_infinity(folder, size)
    if as_json:
        record = {"kind": done.kind, "files": list(map(str, done.files)), "bytes": done.bytes}
        print_json({**record, "infinity": None if stated is None else stated.model_dump()})
        return
    say(f"{done.files[-1]}: {done.numbers / 1e6:,.1f} million numbers, {done.bytes / 1e6:,.1f} MB")
    if stated is not None:
        say(f"{folder} has an Infinity from now on: pictures of {size}")


def _record(model_set: ModelSet) -> dict[str, object]:
    return {
        "name": model_set.name,
        "folder": str(model_set.folder),
        "spec": model_set.spec.model_dump(),
        "weights": model_set.digests,
    }


if __name__ == "__main__":
    app()
