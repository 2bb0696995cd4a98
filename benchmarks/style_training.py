"""StyleDiffusion's ways of training side by side: wall time of an edit, in one process.

    python -m benchmarks.style_training --json out/bench/style_training.json

The same scenes by every way, one after the other and in turns, without Ray, each into an empty
store; the networks are loaded and warm. About two minutes on one core. What the ways are worth is
in docs/quality.md; the figures here are ratios of one run.
"""

import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from farm.backbones.host import OperationHost
from farm.backbones.networks import load_networks
from farm.images import encode_png
from farm.results import EditResult
from farm.runner import prepare, run_edit
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.scenes.edits import SceneEdit, edit_truth, parse_types, sample_edits
from farm.zoo.scenes.requests import edit_name, edit_request
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file

WAYS: Mapping[str, Mapping[str, Any]] = {
    "exact": {"training": "exact"},
    "forced": {"training": "forced"},
    "polish": {"training": "forced_polish"},
    "direct": {"learned": "direct"},
}
"""By name, the parameters of each."""
_WARM_SEED = 999
_TYPES = parse_types("colour,shape,pattern,background")
_WARM = {"num_steps": 2, "inner_steps": 1}

app = command_app()


def edited(
    edit: SceneEdit, name: str, models: ModelSet, host: OperationHost, parameters: dict[str, Any]
) -> EditResult:
    """One edit into a store of its own."""
    source = encode_png(edit_truth(edit).source.images[0])
    request = edit_request(edit, name, model_set=models.name, parameters=parameters)
    with tempfile.TemporaryDirectory() as folder:
        return run_edit(prepare(request, source, models), LocalStore(Path(folder)), host)


@app.command(cls=FarmCommand)
def style_training(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    edits: Annotated[int, typer.Option(min=1, help="Scenes.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 5,
) -> None:
    """Measure each way of training on the same scenes."""
    if json_file is not None:
        check_file(json_file)
    torch.set_num_threads(1)
    models = open_model_set("scenes")
    host = OperationHost(load_networks(models.folder, models.spec, "cpu"))
    (warm,) = sample_edits(1, _WARM_SEED, _TYPES)
    edited(warm, "warm", models, host, dict(_WARM))
    walls: dict[str, list[float]] = {way: [] for way in WAYS}
    stages: dict[str, list[float]] = {way: [] for way in WAYS}
    for number, edit in enumerate(sample_edits(edits, seed, _TYPES)):
        for way, parameters in WAYS.items():
            done = edited(edit, edit_name(edit, number), models, host, dict(parameters)).provenance
            walls[way].append(done.seconds)
            stages[way].append(sum(s for n, s in done.stage_seconds.items() if n != "editing"))
            say(f"{edit_name(edit, number)} {way}: {walls[way][-1]:.2f} s")
    figures: dict[str, float] = {"edits": edits, "cores": os.cpu_count() or 1}
    for way in WAYS:
        figures[f"{way}_edit_seconds"] = statistics.median(walls[way])
        figures[f"{way}_training_seconds"] = statistics.median(stages[way])
        pairs = zip(stages[way], stages["exact"], strict=True)
        figures[f"{way}_training_ratio"] = statistics.median(one / exact for one, exact in pairs)
        both = zip(walls[way], walls["exact"], strict=True)
        figures[f"{way}_edit_ratio"] = statistics.median(one / exact for one, exact in both)
    figures = {name: round(value, 4) for name, value in figures.items()}
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


if __name__ == "__main__":
    app()
