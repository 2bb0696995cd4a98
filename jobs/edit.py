"""Edit one image.

    editfarm edit --image photo.png --source "a red ball" --target "a blue ball" --output blue.png
    python -m jobs.edit --image photo.png --source … --target … --inline --param tau_c=0.4

About 30 s on a laptop: half of it starts the farm, which `--inline` does without.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from farm.errors import EditFailedError, FarmError, InvalidRequestError
from farm.requests import parse_request
from farm.results import EditResult
from farm.runner import (
    PreparedEdit,
    load_output,
    load_result,
    prepare,
    read_image,
    read_mask,
)
from farm.storage.commits import read_commit
from farm.storage.layout import stage_prefix
from farm.storage.opening import open_store
from farm.storage.store import Store, check_writable
from farm.zoo.model_sets import open_model_set
from jobs.batch import OpenRunner
from jobs.console import (
    FarmCommand,
    JsonOption,
    ModelSetOption,
    check_file,
    command_app,
    console,
    print_json,
    print_table,
    say,
    write_file,
)
from jobs.live import live_view
from jobs.outcomes import network_passes
from jobs.records import TENANT
from jobs.report_rows import choice_facts, seconds_text
from jobs.runners import choose_runner

app = command_app()


@app.command(cls=FarmCommand)
def edit(
    image: Annotated[str, typer.Option(help="A PNG, JPEG or WebP file.")],
    source: Annotated[str, typer.Option(help="What the picture shows.")],
    target: Annotated[str, typer.Option(help="What it shall show.")],
    word: Annotated[
        str | None,
        typer.Option(help="The target's word that is new; of edit_infinity the source's, to edit."),
    ] = None,
    mask: Annotated[str | None, typer.Option(help="Where to edit, drawn (edit_infinity).")] = None,
    mask_edits: Annotated[
        str | None, typer.Option(help="What of the mask is edited: white (the default) or black.")
    ] = None,
    method: Annotated[str, typer.Option(help="How to edit.")] = "style_diffusion",
    model_set: ModelSetOption = "scenes",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the method.")
    ] = None,
    store: Annotated[str, typer.Option(help="Path, file:// or s3://bucket.")] = "out/store",
    output: Annotated[Path | None, typer.Option(help="Also write the edited image here.")] = None,
    inline: Annotated[bool, typer.Option(help="In this process, no Ray.")] = False,
    deterministic: Annotated[bool, typer.Option(help="Independent of what else runs.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything and say what is missing; run nothing."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Edit one image."""
    fields = {
        "image": image,
        "source_prompt": source,
        "target_prompt": target,
        "target_word": word,
        "method": method,
        "model_set": model_set,
        "seed": seed,
        "deterministic": deterministic,
        "priority": "interactive",
        "parameters": dict(map(parse_parameter, param or [])),
    }
    # fields that only some methods have
    drawn_fields = {"mask": mask, "mask_edits": mask_edits}
    fields |= {name: value for name, value in drawn_fields.items() if value is not None}
    request = parse_request(fields)
    models = open_model_set(model_set)
    here = Path.cwd()
    drawn = read_mask(request, base=here)
    prepared = prepare(request, read_image(image, base=here), models, mask=drawn)
    if output is not None:
        check_file(output)
    opened = open_store(store)
    if dry_run:
        _show_plan(prepared, opened, as_json=as_json)
        return
    check_writable(opened)
    runner = choose_runner(models, opened, TENANT, inline=inline)
    result = run_one(prepared, opened, runner)
    if output is not None:
        write_file(output, load_output(opened, result, "edited.png"))
    _show(result, opened, output, as_json=as_json)


def parse_parameter(text: str) -> tuple[str, Any]:
    """`name=value`, where the value is JSON or, if it is none, the text itself.

    Raises:
        InvalidRequestError: no name, or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidRequestError(f"--param {text!r}: write NAME=VALUE, for example tau_c=0.4")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def run_one(prepared: PreparedEdit, store: Store, open_runner: OpenRunner) -> EditResult:
    """The edit's result, from the store if it is there.

    Raises:
        FarmError: what became of it otherwise.
    """
    done = load_result(store, TENANT, prepared.edit_id)
    if done is not None:
        say("this edit is in the store already")
        return done
    edits = [("edit", prepared)]
    with open_runner() as runner, live_view(console, total=1) as view:
        for _, outcome in runner.run(edits, in_flight=1, watch=view.running):
            if isinstance(outcome, FarmError):
                raise outcome
            return outcome
    raise EditFailedError("the farm ended without an outcome for this edit; try again")


def _show_plan(prepared: PreparedEdit, store: Store, *, as_json: bool) -> None:
    """What an edit would compute: what of it the store has not."""
    done = load_result(store, TENANT, prepared.edit_id) is not None
    made = {
        name: read_commit(store, stage_prefix(TENANT, digest)) is not None
        for name, digest in prepared.stages.items()
    }
    if as_json:
        print_json({"edit_id": prepared.edit_id, "done": done, "stages": made})
        return
    table = Table(show_header=False, box=None)
    table.add_row("edit", prepared.edit_id + (" (is in the store)" if done else ""))
    for name, is_there in made.items():
        table.add_row(name, "is in the store" if is_there or done else "is to be made")
    print_table(table)


def _show(result: EditResult, store: Store, output: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    provenance = result.provenance
    table = Table(show_header=False, box=None)
    table.add_row("edit", result.edit_id + (" (was in the store)" if result.reused else ""))
    table.add_row("image", str(output or result.files["edited.png"]))
    for fact in choice_facts(partial(load_output, store, result), result.files):
        table.add_row(fact.label, fact.value)
    table.add_row("inversion", "reused" if provenance.stage_reused else "made")
    table.add_row("time", seconds_text(provenance.seconds))
    table.add_row("network passes", f"{network_passes(provenance.work):,}")
    table.add_row("trainer, backbones", f"{provenance.trainer_pid}, {provenance.backbone_pids}")
    print_table(table)


if __name__ == "__main__":
    app()
