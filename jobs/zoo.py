"""Look at the scenes world and its networks, measure them, and put trained parts into the package.

editfarm zoo preview --seed 3 --output preview.png
editfarm zoo manifest --folder examples/demo --edits 8 --seed 4
editfarm zoo samples --seed 5 --output samples.png
editfarm zoo eval
editfarm zoo export --from out/zoo/export
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from farm.images import encode_png
from farm.zoo.recipes.parts import PARTS, find_part, install
from farm.zoo.recipes.unet import UNetRecipe
from farm.zoo.scenes.edits import edit_truth, parse_types, sample_edits
from farm.zoo.scenes.preview import grid, preview
from farm.zoo.scenes.requests import edit_name, request_fields, write_pictures
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.weights import SCENES_FOLDER
from jobs.console import FarmCommand, command_app, print_json, say, write_file

app = command_app(__doc__)

Output = Annotated[Path, typer.Option(help="PNG file to write")]
Seed = Annotated[int, typer.Option(min=0, help="held-out seed")]


@app.command("preview", cls=FarmCommand)
def preview_command(output: Output = Path("out/preview.png"), seed: Seed = 3) -> None:
    """Draw scenes, and a source and a target row for every type of edit."""
    _write(output, encode_png(preview(seed)))


@app.command(cls=FarmCommand)
def manifest(
    folder: Annotated[Path, typer.Option(help="Where manifest and pictures go.")],
    edits: Annotated[int, typer.Option(min=1)] = 8,
    seed: Seed = 7,
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = "colour,background",
) -> None:
    """Write held-out edits as a manifest with pictures, for `editfarm edit-many`."""
    lines: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, edit in enumerate(sample_edits(edits, seed, parse_types(types)), start=1):
        name = edit_name(edit, number)
        image, truth = write_pictures(edit_truth(edit), name, folder)
        lines.append(json.dumps({**request_fields(edit, name, image), "truth": truth}))
    _write(folder / "manifest.jsonl", "".join(f"{line}\n" for line in lines).encode())


@app.command(cls=FarmCommand)
def samples(
    output: Output = Path("out/samples.png"),
    seed: Seed = 5,
    two_share: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
    networks: Annotated[Path, typer.Option(help="folder of networks")] = SCENES_FOLDER,
) -> None:
    """Generate the first 64 prompts of a seed, not chosen."""
    scenes = sample_scenes(64, generator_for("heldout", seed), split="heldout", two_share=two_share)
    recipe = UNetRecipe(networks=networks)
    with torch.no_grad():
        images = recipe.sample(recipe.load(networks), scenes, seed=seed)
    _write(output, encode_png(grid(images, columns=16)))


@app.command("eval", cls=FarmCommand)
def evaluate(
    part: Annotated[list[str] | None, typer.Argument(help="parts; all by default")] = None,
    networks: Annotated[Path, typer.Option(help="folder of networks")] = SCENES_FOLDER,
) -> None:
    """Measure parts on held-out seeds; JSON on stdout."""
    figures = {name: find_part(name).measure(networks) for name in part or PARTS}
    print_json(figures)


@app.command(cls=FarmCommand)
def export(
    exported: Annotated[Path, typer.Option("--from", help="what `train-zoo` exported")] = Path(
        "out/zoo/export"
    ),
    folder: Annotated[Path, typer.Option("--to", help="model-set folder")] = SCENES_FOLDER,
) -> None:
    """Copy trained parts into a model set and write its digests."""
    install(exported, folder)
    say(f"wrote {folder}")


def _write(path: Path, data: bytes) -> None:
    write_file(path, data)
    say(f"wrote {path}")


if __name__ == "__main__":
    app()
