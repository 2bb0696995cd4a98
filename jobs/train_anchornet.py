r"""Train one AnchorNet for many pictures, or go on where its checkpoint left off.

    python -m jobs.train_anchornet --edits 192 --seed 3 --workers 2
    python -m jobs.train_anchornet --manifest edits.jsonl --out out/mine
    editfarm edit --method learnable_regions … --param train=false \
        --param anchornet=out/anchornet/anchornet.safetensors

The pictures' loss tables are made on the farm first (scenes that no evaluation uses, or a
manifest's edits); what is in the store is not made again. Then a plain loop, or Ray Train with
`--workers`, trains on them. An edit that starts from the result with `train=false` draws one size
of each anchor instead of all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError

from farm.errors import FarmError, InvalidRequestError
from farm.images import encode_png
from farm.methods.learnable_regions.config import LearnableRegionsConfig
from farm.requests import describe, parse_request
from farm.requests.learnable_regions import LearnableRegionsParameters
from farm.runner import PreparedEdit, load_stage, prepare, read_image
from farm.runner.learnable_regions import ANALYSIS, TABLE, unpack_analysis, unpack_table
from farm.storage.commits import read_commit
from farm.storage.layout import stage_prefix
from farm.storage.opening import open_store
from farm.storage.store import Store, check_writable
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.recipes.anchornet import AnchorNetRecipe, Tables
from farm.zoo.recipes.loop import LoopConfig, Training
from farm.zoo.scenes.edits import edit_truth, parse_types, sample_edits
from farm.zoo.scenes.requests import edit_name, edit_request
from jobs.bars import bar
from jobs.batch import EditRunner, Messages
from jobs.console import FarmCommand, ModelSetOption, command_app, say
from jobs.edit import parse_parameter
from jobs.importers import Reading
from jobs.manifests import BrokenLine
from jobs.records import TENANT
from jobs.runners import choose_runner
from jobs.train_zoo import show_training, train_elsewhere

_METHOD = "learnable_regions"

app = command_app()


@app.command(cls=FarmCommand)
def main(
    edits: Annotated[int, typer.Option(min=1, help="Number of training scenes.")] = 192,
    seed: Annotated[int, typer.Option(min=0, help="Of scenes, parameters and draws.")] = 0,
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = "shape,colour",
    manifest: Annotated[
        Path | None, typer.Option(help="Edits to learn from, instead of scenes.")
    ] = None,
    model_set: ModelSetOption = "scenes",
    param: Annotated[
        list[str] | None, typer.Option(help="Method parameter, name=value; repeatable.")
    ] = None,
    store: Annotated[str, typer.Option(help="Store of the tables.")] = "out/anchornet/store",
    out: Annotated[Path, typer.Option(help="Checkpoint, curve, result.")] = Path("out/anchornet"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1500,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step and worker.")] = 16,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 3e-3,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process.")
    ] = 0,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Tables made at once.")] = 8,
    inline: Annotated[bool, typer.Option(help="Tables in this process, no Ray.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do.")
    ] = False,
) -> None:
    """Train one AnchorNet over many images; the same command resumes an interrupted run."""
    out = out.absolute()  # the workers of Ray Train stand in a folder of their own
    models, opened = open_model_set(model_set), open_store(store)
    parameters = dict(map(parse_parameter, param or [])) | {"sizes": "argmin"}
    config = _config(models, parameters)
    # the edit itself is of no use here
    parameters |= {"finalists": 1, "draws": 1, "num_steps": config.search.preview_steps}
    if manifest is None:
        prepared = list(_scenes(edits, seed, types, models, parameters))
    else:
        prepared = list(_listed(manifest, models, parameters))
    if dry_run:
        made = (stage_prefix(TENANT, edit.stages[TABLE]) for edit in prepared)
        missing = sum(read_commit(opened, prefix) is None for prefix in made)
        say(f"{missing} tables of {len(prepared)} are to be made, then {steps} steps")
        return
    check_writable(opened)
    with choose_runner(models, opened, TENANT, inline=inline)() as runner:
        _run(runner, prepared, max_in_flight)
    tables = out / "tables.safetensors"
    Tables.stack(_table(opened, edit) for edit in prepared).save(tables)
    loop = LoopConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=lr,
        seed=seed,
        evaluate_every=max(1, steps // 5),
        bf16=False,
    )
    training = _train(tables, config, loop, out, workers=workers)
    training.recipe.export(training.averaged(), out)
    say(
        f"AnchorNet of {len(prepared)} pictures, {training.step} steps: {out}/anchornet.safetensors"
    )
    say(f"curve: {training.curve}")


def _config(models: ModelSet, parameters: dict[str, Any]) -> LearnableRegionsConfig:
    try:
        checked = LearnableRegionsParameters.model_validate(parameters)
    except ValidationError as error:
        raise InvalidRequestError(f"--param: {describe(error)}") from error
    return models.learnable_regions.with_parameters(checked)


def _scenes(
    count: int, seed: int, types: str, models: ModelSet, parameters: dict[str, Any]
) -> Iterator[PreparedEdit]:
    """Edits of training scenes, which no evaluation uses."""
    for number, edit in enumerate(sample_edits(count, seed, parse_types(types), split="train"), 1):
        request = edit_request(
            edit,
            edit_name(edit, number),
            model_set=models.name,
            parameters=parameters,
            method=_METHOD,
        )
        yield prepare(request, encode_png(edit_truth(edit).source.images[0]), models)


def _listed(manifest: Path, models: ModelSet, parameters: dict[str, Any]) -> Iterator[PreparedEdit]:
    """A manifest's edits, whatever else their lines ask for.

    Raises:
        InvalidRequestError: a line is none.
    """
    for line in Reading(method=_METHOD).lines(manifest, model_set=models.name):
        if isinstance(line, BrokenLine):
            raise line.error
        kept = ("image", "source_prompt", "target_prompt", "seed")
        fields = {name: getattr(line.request, name) for name in kept}
        about = {"method": _METHOD, "model_set": models.name, "parameters": parameters}
        picture = read_image(line.request.image, base=manifest.parent)
        yield prepare(parse_request({**fields, **about}), picture, models)


def _run(runner: EditRunner, prepared: list[PreparedEdit], in_flight: int) -> None:
    """Make the tables that the store lacks.

    Raises:
        FarmError: as the first edit that failed gave it; the others are in the store.
    """
    done = 0
    failures: list[FarmError] = []
    named = ((f"table-{number}", edit) for number, edit in enumerate(prepared, 1))
    with bar("tables", len(prepared)) as show:

        def watch(messages: Messages) -> None:
            show(done, f"{len(messages)} running")

        for name, outcome in runner.run(named, in_flight=in_flight, watch=watch):
            done += 1
            if isinstance(outcome, FarmError):
                say(f"failed {name}: {outcome.message}")
                failures.append(outcome)
    if failures:
        raise failures[0]


def _table(store: Store, edit: PreparedEdit) -> Tables:
    analysis = unpack_analysis(load_stage(store, TENANT, edit.stages[ANALYSIS]))
    state = unpack_table(load_stage(store, TENANT, edit.stages[TABLE]))
    if not state.table.isfinite().all():
        raise InvalidRequestError(
            f"the table of edit {edit.edit_id} has gaps: leave objective=reinforce out of --param"
        )
    return Tables(
        analysis.features[None], state.saliency[None], state.cells[None], state.table[None]
    )


def _train(
    tables: Path, config: LearnableRegionsConfig, loop: LoopConfig, out: Path, *, workers: int
) -> Training:
    def build() -> Training:
        torch.set_num_threads(1)
        return Training(AnchorNetRecipe(tables, config, seed=loop.seed), loop, out)

    if workers:
        train_elsewhere("AnchorNet", build, workers)
    else:
        show_training("AnchorNet", build())
    return build()


if __name__ == "__main__":
    app()
