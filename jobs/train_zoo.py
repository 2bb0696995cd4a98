"""Train one part of the scenes zoo, or go on where its checkpoint left off.

    editfarm zoo train vae
    python -m jobs.train_zoo vae --workers 1
    ray job submit --working-dir . -- python -m jobs.train_zoo unet --workers 2

`editfarm zoo train --help` lists the parts; they need each other in the order vae, clip, judge,
unet, inpainting (docs/zoo.md has times). State lives in `out/zoo`: the checkpoint, the curve and
what is exported at the end. Interrupt at will, the same command resumes.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from actors.local import local_ray
from actors.zoo_training import train_on_workers
from farm.allocator import keep_freed_memory
from farm.zoo.recipes.loop import Report, Training, train_recipe
from farm.zoo.recipes.parts import PARTS, check_needs, find_part
from farm.zoo.recipes.pool_files import encoding
from jobs.bars import watched
from jobs.console import FarmCommand, command_app, say


def describe(report: Report) -> str:
    """One line for one report."""
    figures = {**report.figures, **(report.evaluation or {})}
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    return f"step {report.step}  loss {report.loss:.4f}  {shown}"


app = command_app()


@app.command(cls=FarmCommand)
def main(
    part: Annotated[str, typer.Argument(help=", ".join(PARTS))],
    out: Annotated[Path, typer.Option(help="where checkpoints and exports go")] = Path("out/zoo"),
    start_from: Annotated[Path | None, typer.Option(help="weights to continue from")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="of scenes and batches; take a new one with --start-from")
    ] = 0,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray Train workers; 0 trains in this process")
    ] = 0,
    threads: Annotated[int, typer.Option(min=1, help="torch threads a worker")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do.")
    ] = False,
) -> None:
    """Train a part and export it; the same command resumes an interrupted run."""
    # the workers of Ray Train stand in a folder of their own
    out, start_from = out.absolute(), start_from and start_from.absolute()
    chosen = find_part(part)
    check_needs(chosen, out / "export")
    overrides = {"steps": steps, "batch_size": batch_size}
    config = replace(
        chosen.config, seed=seed, **{k: v for k, v in overrides.items() if v is not None}
    )

    def build() -> Training:
        torch.set_num_threads(threads)
        return Training(chosen.recipe(out / "export", start_from, seed), config, out)

    if dry_run:
        begun = build().step
        say(f"{part}: {max(0, config.steps - begun)} steps of {config.steps} are to be done")
        say(f"batches of {config.batch_size}, into {out}")
        return
    if workers:
        train_elsewhere(part, build, workers)
    else:
        keep_freed_memory()
        show_training(part, build())
    training = build()
    training.recipe.export(training.averaged(), out / "export")
    say(f"{part}: {training.step} steps, exported to {out / 'export' / part}")
    say(f"curve: {training.curve}")


def show_training(title: str, training: Training) -> None:
    """Train to the end with a bar, and a line for each evaluation."""
    steps, cache, losses = training.config.steps, training.folder / "cache", [""]
    with watched(
        title,
        steps,
        lambda: training.step,
        done=training.step,
        note=lambda: encoding_note(cache) or losses[-1],
    ):
        for report in train_recipe(training):
            losses[:] = [f"loss {report.loss:.4f}"]
            if report.evaluation:
                say(describe(report))


def train_elsewhere(title: str, build: Callable[[], Training], workers: int) -> None:
    """Train to the end on Ray Train's workers; how far they are is read off their files."""
    training = build()
    curve, steps, cache = training.curve, training.config.steps, training.folder / "cache"
    with (
        local_ray(),
        watched(
            title,
            steps,
            lambda: last_step(curve),
            done=training.step,
            note=lambda: encoding_note(cache),
        ),
    ):
        train_on_workers(build, workers=workers)


def encoding_note(cache: Path) -> str:
    """What is being encoded before the first step, and how far that is; empty where nothing is."""
    pool = encoding(cache)
    return f"encoding pictures ({pool.what}): {pool.done:,} of {pool.total:,}" if pool else ""


def last_step(curve: Path) -> int:
    """The newest step of a curve; 0 where there is none yet."""
    try:
        *_, last = curve.read_text(encoding="utf-8").splitlines()
        return int(json.loads(last)["step"])
    except (OSError, ValueError, KeyError):
        return 0


if __name__ == "__main__":
    app()
