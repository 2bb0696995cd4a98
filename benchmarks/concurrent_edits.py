"""Eight edits at once through one backbone against the same eight one after the other.

    python -m benchmarks.concurrent_edits --json out/bench/concurrent_edits.json

Both in one run, on a farm that is already warm; about three minutes on two cores. The figure is the
ratio, serial over concurrent: what batching is worth where nothing else is shared.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import FarmError
from farm.images import encode_png
from farm.runner import PreparedEdit, prepare
from farm.storage.opening import open_store
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.requests import edit_name, edit_request
from jobs.console import FarmCommand, command_app, print_json, say, write_file
from jobs.runners import choose_runner

app = command_app()


def _prepared(models: ModelSet, number: int, seed: int) -> list[tuple[str, PreparedEdit]]:
    edits = sample_edits(number, seed, ("colour", "background"))
    named = [(edit_name(edit, n), edit) for n, edit in enumerate(edits, start=1)]
    return [
        (
            name,
            prepare(
                edit_request(edit, name, model_set=models.name, parameters={}),
                encode_png(edit_truth(edit).source.images[0]),
                models,
            ),
        )
        for name, edit in named
    ]


def _seconds(models: ModelSet, edits: list[tuple[str, PreparedEdit]], in_flight: int) -> float:
    """Wall time of all edits into an empty store; a first edit has warmed the farm."""
    with tempfile.TemporaryDirectory() as folder:
        opened = choose_runner(models, open_store(folder), "default", inline=False)
        with opened() as runner:
            warm = [("warm", _prepared(models, 1, 999)[0][1])]
            list(runner.run(iter(warm), in_flight=1, watch=lambda _: None))
            started = time.monotonic()
            for name, outcome in runner.run(iter(edits), in_flight=in_flight, watch=lambda _: None):
                if isinstance(outcome, FarmError):
                    raise outcome
                say(f"{name} {time.monotonic() - started:.1f} s")
            return time.monotonic() - started


@app.command(cls=FarmCommand)
def concurrent_edits(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    edits: Annotated[int, typer.Option(min=2)] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 11,
) -> None:
    """Measure what sharing one backbone is worth."""
    models = open_model_set("scenes")
    prepared = _prepared(models, edits, seed)
    concurrent = _seconds(models, prepared, edits)
    serial = _seconds(models, prepared, 1)
    figures = {
        "edits": edits,
        "concurrent_seconds": round(concurrent, 2),
        "serial_seconds": round(serial, 2),
        "ratio": round(serial / concurrent, 3),
    }
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


if __name__ == "__main__":
    app()
