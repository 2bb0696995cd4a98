"""List, download and delete what a store keeps: finished edits, and the inversions behind them.

    editfarm artifacts list --store out/store
    editfarm artifacts download 3f9a --to out/inversion
    editfarm artifacts delete 3f9a 71c2 --store s3://bucket/edits

An inversion holds the trained networks of one image, prompt and configuration. It is reused by
every edit that needs the same one, and made again after it was deleted.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from farm.runner.artifacts import (
    Artifact,
    Deletion,
    artifact_files,
    delete_edit,
    delete_stage,
    find_artifact,
    list_artifacts,
    stage_facts,
)
from farm.storage.opening import open_store
from jobs.bars import bar
from jobs.console import (
    FarmCommand,
    JsonOption,
    command_app,
    console,
    print_json,
    print_table,
    say,
    write_file,
)
from jobs.records import TENANT

_SHOWN = 12
"""Characters of an id in tables; enough to name it."""

app = command_app("List, download and delete what a store keeps.")

StoreOption = Annotated[str, typer.Option(help="Path, file:// or s3://bucket.")]
TenantOption = Annotated[str, typer.Option(help="Whose artifacts.")]
IdArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or how they begin.")]


class Kinds(StrEnum):
    """Which artifacts to list."""

    stages = "stages"
    edits = "edits"
    all = "all"


@app.command("list", cls=FarmCommand)
def list_command(
    store: StoreOption = "out/store",
    kind: Annotated[Kinds, typer.Option(help="Inversions and the like, edits, or both.")] = (
        Kinds.stages
    ),
    details: Annotated[bool, typer.Option(help="Also prompts; reads the artifacts whole.")] = False,
    tenant: TenantOption = TENANT,
    as_json: JsonOption = False,
) -> None:
    """What the store keeps."""
    opened = open_store(store)
    with _looking() as seen:
        edits, stages = list_artifacts(opened, tenant, seen=seen)
    chosen = [*(stages if kind != "edits" else []), *(edits if kind != "stages" else [])]
    asked = [a.id for a in chosen if details and a.kind == "stage"]
    facts = {name: stage_facts(opened, tenant, name) for name in asked}
    if as_json:
        for artifact in chosen:
            print_json(_record(artifact, facts))
    else:
        print_table(_table(chosen, facts if details else None))
    say(f"{len(stages)} stages, {len(edits)} edits in {opened.uri}")


@app.command(cls=FarmCommand)
def download(
    ids: IdArgument,
    to: Annotated[Path, typer.Option(help="Folder; each artifact gets one of its own in it.")],
    store: StoreOption = "out/store",
    tenant: TenantOption = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Copy artifacts into a folder, each file checked against its digest."""
    opened = open_store(store)
    found = [find_artifact(opened, tenant, text) for text in ids]
    for kind, name in found:
        files = list(artifact_files(opened, tenant, kind, name))
        total = sum(about.size for _, about, _ in files)
        paths: list[str] = []
        copied = 0
        with bar(f"{kind} {name[:_SHOWN]}", total, "bytes") as show:
            for file, about, read in files:
                path = to / name / file
                write_file(path, read())
                copied += about.size
                show(copied, file)
                paths.append(str(path))
        if as_json:
            print_json({"kind": kind, "id": name, "files": paths, "size": total})
        else:
            say(f"{kind} {name}: {len(paths)} files, {_size(total)}, in {to / name}")


@app.command(cls=FarmCommand)
def delete(
    ids: IdArgument,
    store: StoreOption = "out/store",
    keep_stages: Annotated[
        bool, typer.Option(help="Of deleted edits keep the inversions, also those of no other.")
    ] = False,
    tenant: TenantOption = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Delete artifacts; with an edit goes what derives from it alone."""
    opened = open_store(store)
    found = [find_artifact(opened, tenant, text) for text in ids]
    for kind, name in dict.fromkeys(found):
        if kind == "edit":
            deletion = delete_edit(opened, tenant, name, keep_stages=keep_stages)
        else:
            deletion = delete_stage(opened, tenant, name)
        if as_json:
            print_json({"kind": kind, "id": name, **asdict(deletion)})
        else:
            say(f"{kind} {name}: {_deleted(deletion)}")


def _record(artifact: Artifact, facts: dict[str, dict[str, str]]) -> dict[str, Any]:
    about = facts.get(artifact.id)
    record = {
        "kind": artifact.kind,
        "id": artifact.id,
        "name": artifact.name,
        "method": artifact.method,
        "model_set": artifact.model_set,
        "image": artifact.image,
        "size": artifact.size,
        "files": {name: file.model_dump() for name, file in artifact.files.items()},
        "stages": artifact.stages,
        "edits": list(artifact.edits),
    }
    return record if about is None else {**record, "facts": about}


def _table(artifacts: list[Artifact], facts: dict[str, dict[str, str]] | None) -> Table:
    columns = ["id", "what", "method", "model set", "image", "size", "edits"]
    table = Table(*columns, *(["prompt"] if facts is not None else []), box=None)
    for artifact in artifacts:
        cells = [
            artifact.id[:_SHOWN],
            artifact.name or artifact.kind,
            artifact.method or "-",
            escape(artifact.model_set or "-"),
            (artifact.image or "-")[:_SHOWN],
            _size(artifact.size),
            str(len(artifact.edits)) if artifact.kind == "stage" else "",
        ]
        if facts is not None:
            cells.append(escape(facts.get(artifact.id, {}).get("prompt", "")))
        table.add_row(*cells)
    return table


def _deleted(deletion: Deletion) -> str:
    parts = [
        f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
        for what, names in (
            ("edit", deletion.edits),
            ("stage", deletion.stages),
            ("image", deletion.inputs),
        )
        if names
    ]
    gone = f"deleted {', '.join(parts)} ({deletion.objects} objects)" if parts else "gone already"
    return f"{gone}; kept {len(deletion.kept)} that others need" if deletion.kept else gone


def _size(number: int) -> str:
    shown = float(number)
    for unit in ("B", "kB", "MB"):
        if shown < 1000:
            return f"{shown:.3g} {unit}"
        shown /= 1000
    return f"{shown:.3g} GB"


@contextmanager
def _looking() -> Generator[Callable[[str], None], None, None]:
    """A count that moves on a terminal; nothing elsewhere."""
    with console.status("reading the store") as status:
        count = 0

        def seen(name: str) -> None:
            nonlocal count
            count += 1
            status.update(f"reading the store: {count} artifacts, {name[:_SHOWN]}")

        yield seen


if __name__ == "__main__":
    app()
