r"""Measure methods on held-out scenes, or on PIE-Bench, as definitions.md says.

    editfarm evaluate --model-set scenes --method style_diffusion --edits 192 --seed 1 \
        --types colour,background --json out/quality/style_diffusion.json
    editfarm evaluate --method style_diffusion --method learnable_regions --method auto \
        --baselines --edits 192 --json out/quality/all.json --pictures out/quality/pictures
    editfarm evaluate --edits 192 --json out/quality/arms.json \
        --arm forced:training=forced --arm sdedit:method=sdedit
    editfarm evaluate --benchmark pie FOLDER --method style_diffusion --baselines

A method sees the picture's bytes, the prompts and the word, through the farm; masks, scenes and the
judge stay in this process. Each further `--method` and each `--arm` does the same edits in another
way; they are compared pair by pair. What is in the store already is not run again.
"""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.errors import InvalidRequestError
from farm.requests.parsing import DEFAULT_METHOD
from farm.storage.opening import open_store
from farm.storage.store import check_writable
from farm.zoo.model_sets import open_model_set
from farm.zoo.scenes.edits import parse_types
from farm.zoo.scenes.vocabulary import DEFAULT_TYPES
from jobs.console import (
    FarmCommand,
    ModelSetOption,
    check_file,
    command_app,
    say,
    write_file,
)
from jobs.edit import parse_parameter
from jobs.evaluation import scenes_run
from jobs.evaluation.arms import plan_arms
from jobs.evaluation.measures import measures_of
from jobs.evaluation.running import show_plan
from jobs.evaluation.scores import MEASURES
from jobs.evaluation.tradeoff import draw_tradeoff
from jobs.records import TENANT
from jobs.runners import choose_runner

_THREADS = 8
_SCENES_EDITS = 64
_SCENES, _PIE = "scenes", "pie"

app = command_app()


@app.command(cls=FarmCommand)
def evaluate(
    folder: Annotated[Path | None, typer.Argument(help="Of the benchmark pie.")] = None,
    benchmark: Annotated[str, typer.Option(help="scenes or pie.")] = _SCENES,
    edits: Annotated[
        int | None, typer.Option(min=1, help="Number of edits: 64 of scenes, all of pie.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Held-out seed; any works.")] = 1,
    method: Annotated[
        list[str] | None, typer.Option(help="How to edit; repeatable, the first is the default.")
    ] = None,
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = ",".join(DEFAULT_TYPES),
    model_set: ModelSetOption = "scenes",
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="Parameter of the first method, name=value; repeatable."),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PARAM=VALUE,…",
            help="The same edits with other parameters (or method=…), to compare; repeatable.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Also what each method is usually compared with.")
    ] = False,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for a sheet of best, median, worst of each arm.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="SVG file: quality against accelerator seconds.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Of pie: folder of the published metrics' networks; else the set's own."),
    ] = None,
    convention: Annotated[str, typer.Option(help="Of pie: released or corrected.")] = "released",
    image_reward: Annotated[bool, typer.Option(help="Of pie: also ImageReward.")] = False,
    store: Annotated[str, typer.Option(help="Store; what it has is not run again.")] = (
        "out/evaluate"
    ),
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many edits there are to do.")
    ] = False,
) -> None:
    """Measure methods on held-out scenes against their exact truth, or on PIE-Bench."""
    parameters = dict(map(parse_parameter, param or []))
    arms = plan_arms(method or [DEFAULT_METHOD], parameters, arm or [], standard=baselines)
    for asked in arms:
        measures_of(asked.method, MEASURES)
    files = (json_file, figure, pictures and pictures / "any.png")
    for file in files:
        if file is not None:
            check_file(file)
    models, opened = open_model_set(model_set), open_store(store)
    set_up = {
        "models": models,
        "store": opened,
        "open_runner": choose_runner(models, opened, TENANT, inline=inline),
        "seed": seed,
        "in_flight": max_in_flight,
        "threads": 1 if inline else _THREADS,
    }
    run: Any
    if _is_pie(benchmark, folder):
        # by name: it imports the metrics' libraries, which scenes do not need
        run = importlib.import_module("jobs.evaluation.pie_run")
        own = {"folder": folder, "edits": edits, "weights": weights}
        own |= {"convention": convention, "image_reward": image_reward}
    else:
        run = scenes_run
        own = {"edits": edits or _SCENES_EDITS, "types": parse_types(types), "pictures": pictures}
    if dry_run:
        show_plan(run.planned(arms, models=models, seed=seed, **own), opened)
        return
    check_writable(opened)
    record: dict[str, Any] = run.evaluate(arms, **set_up, **own)
    if json_file is not None:
        write_file(json_file, json.dumps(record, indent=1).encode())
        say(f"figures: {json_file}")
    if figure is not None:
        write_file(figure, draw_tradeoff(run.points(record)).encode())
        say(f"figure: {figure}")
    run.show(record)
    raise typer.Exit(int(run.failed(record) > 0))


def _is_pie(benchmark: str, folder: Path | None) -> bool:
    """Whether the benchmark is PIE-Bench; the folder goes with it.

    Raises:
        InvalidRequestError: there is no such benchmark, or the folder is not as it needs it.
    """
    if benchmark not in (_PIE, _SCENES):
        raise InvalidRequestError(f"no benchmark {benchmark!r}; there are {_SCENES} and {_PIE}")
    if benchmark == _SCENES and folder is not None:
        raise InvalidRequestError(
            f"scenes are drawn, not read, and there is a folder {str(folder)!r}: leave it out, or "
            f"say --benchmark {_PIE}"
        )
    if benchmark == _PIE and folder is None:
        raise InvalidRequestError(
            "--benchmark pie needs its folder, with mapping_file.json and annotation_images: name "
            "it after the options"
        )
    return benchmark == _PIE


if __name__ == "__main__":
    app()
