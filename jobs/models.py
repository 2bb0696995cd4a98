"""List, fetch, convert and check the networks of model sets.

editfarm models list
editfarm models pull sd15+regions
editfarm models check --model-set scenes
python -m jobs.models check --model-set scenes
editfarm models convert infinity_2b_reg.pth models/mine
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from actors.sharing import weight_bytes
from farm.backbones.convert_networks import network_kind
from farm.backbones.infinity.convert import Precision
from farm.backbones.infinity.schedules import Size
from farm.zoo.checking import check_networks
from farm.zoo.checkpoints import CHECKPOINTS, Checkpoint
from farm.zoo.infinity_sets import state_infinity
from farm.zoo.model_sets import ModelSet, list_model_sets, open_model_set
from jobs.bars import bar
from jobs.console import (
    FarmCommand,
    JsonOption,
    ModelSetOption,
    command_app,
    print_json,
    print_table,
    say,
)
from jobs.converting import write_checkpoint, write_network
from jobs.model_pull import pull_command

app = command_app("List, fetch, convert and check models.")
app.command("pull", cls=FarmCommand)(pull_command)


@app.command("list", cls=FarmCommand)
def list_command(
    model_set: Annotated[
        list[str] | None, typer.Option(help="Also this folder; may be given again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The model sets that are at hand, and the checkpoints that can be fetched."""
    found = [*list_model_sets(), *map(open_model_set, model_set or [])]
    if as_json:
        for one in found:
            print_json(_record(one))
        for name, checkpoint in CHECKPOINTS.items():
            print_json({"checkpoint": name, **_facts(checkpoint)})
        return
    print_table(_sets_table(found))
    print_table(_checkpoints_table())


@app.command("check", cls=FarmCommand)
def check_command(model_set: ModelSetOption = "scenes", as_json: JsonOption = False) -> None:
    """Compare every weight file with its digest, and its keys and shapes with its network."""
    found = open_model_set(model_set)
    with bar(f"digests of {found.name}", weight_bytes(found), "bytes") as show:
        found.verify(show)
    parts = check_networks(found)
    if as_json:
        more = {"verified": True, "parts": [asdict(part) for part in parts]}
        print_json({**_record(found), **more})
        return
    for part in parts:
        released = f", as {part.released} was released" if part.released else ""
        unused = f", {part.unused} more that nothing takes" if part.unused else ""
        say(
            f"{part.part}: {part.tensors} tensors, {part.numbers / 1e6:,.1f} million numbers"
            f"{released}{unused}"
        )
    say(f"{found.name}: {len(found.digests)} weight files are as they should be")


@app.command("convert", cls=FarmCommand)
def convert_command(
    source: Annotated[
        Path, typer.Argument(help="A released Infinity, BSQ, DINO, CLIP or T5: file or folder.")
    ],
    folder: Annotated[Path, typer.Argument(help="Model-set folder to write into.")],
    precision: Annotated[Precision, typer.Option(help="Of a transformer's matrices.")] = "bf16",
    size: Annotated[Size, typer.Option(help="Of the transformer's pictures.")] = "1M",
    part: Annotated[
        str | None, typer.Option(help="Folder in the set for a DINO, CLIP or T5. [its kind]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a released checkpoint as safetensors, which are memory-mapped ever after."""
    kind = network_kind(source)
    if kind is not None:
        written = write_network(source, folder / (part or kind))
        if as_json:
            print_json({**asdict(written), "folder": str(written.folder)})
        else:
            say(
                f"{written.folder}: {written.kind}, {written.numbers / 1e6:,.1f} million numbers, "
                f"{written.bytes / 1e6:,.1f} MB"
            )
        return
    done = write_checkpoint(source, folder, precision)
    stated = state_infinity(folder, size)
    if as_json:
        record = {"kind": done.kind, "files": list(map(str, done.files)), "bytes": done.bytes}
        print_json({**record, "infinity": None if stated is None else stated.model_dump()})
        return
    say(f"{done.files[-1]}: {done.numbers / 1e6:,.1f} million numbers, {done.bytes / 1e6:,.1f} MB")
    if stated is not None:
        say(f"{folder} has an Infinity from now on: pictures of {size}")


def _sets_table(found: list[ModelSet]) -> Table:
    table = Table("name", "networks", "size", "image", "tokens", "folder", box=None)
    for one in found:
        table.add_row(
            one.name,
            str(len(one.digests)),
            f"{weight_bytes(one) / 1e6:.1f} MB",
            f"{one.spec.image_size} px",
            str(one.spec.tokens),
            str(one.folder),
        )
    return table


def _checkpoints_table() -> Table:
    table = Table("checkpoint", "repository", "size", "licence", "revision", "digest", box=None)
    for name, one in CHECKPOINTS.items():
        table.add_row(
            name,
            one.repository,
            f"{one.bytes / 1e9:.1f} GB",
            one.licence,
            one.revision or "unknown",
            "published" if one.digests else "unknown",
        )
    return table


def _facts(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        "repository": checkpoint.repository,
        "mirrors": list(checkpoint.mirrors),
        "revision": checkpoint.revision,
        "licence": checkpoint.licence,
        "bytes": checkpoint.bytes,
        "numbers": dict(checkpoint.numbers),
        "digests": dict(checkpoint.digests),
        "about": checkpoint.about,
    }


def _record(model_set: ModelSet) -> dict[str, object]:
    return {
        "name": model_set.name,
        "folder": str(model_set.folder),
        "spec": model_set.spec.model_dump(),
        "weights": model_set.digests,
        "sources": {part: one.model_dump() for part, one in model_set.manifest.sources.items()},
    }


if __name__ == "__main__":
    app()
