"""Look at the scenes world, train and measure its networks, and put them into the package.

editfarm zoo train vae
editfarm zoo preview --seed 3 --output preview.png
editfarm zoo manifest --folder examples/demo --edits 8 --seed 4
editfarm zoo pie --folder out/pie-scenes --edits 24 --seed 7
editfarm zoo samples unet --seed 5 --output samples.png
editfarm zoo attention unet --seed 5 --output attention.png
editfarm zoo curves out/zoo/unet.curve.jsonl --output curves.png
editfarm zoo eval --json out/zoo/eval.json
editfarm zoo merge previous/inpainting --before old/unet --after new/unet --output merged
editfarm zoo export --from out/zoo/export
"""

from pathlib import Path
from typing import Annotated

import typer

from farm.images import encode_png
from farm.zoo.recipes.parts import install
from farm.zoo.recipes.task_vectors import write_with_change
from farm.zoo.scenes.edits import parse_types, sample_edits
from farm.zoo.scenes.preview import preview
from farm.zoo.scenes.vocabulary import EDIT_TYPES
from farm.zoo.weights import SCENES_FOLDER
from jobs.console import FarmCommand, command_app, say, write_file
from jobs.evaluation.pie_scenes import write_pie_scenes
from jobs.scenes_manifest import write_scenes
from jobs.train_zoo import main as train
from jobs.zoo_eval import evaluate
from jobs.zoo_pictures import Output, Seed, attention, curves, samples

app = command_app(__doc__)


@app.command("preview", cls=FarmCommand)
def preview_command(output: Output = Path("out/preview.png"), seed: Seed = 3) -> None:
    """Draw scenes, and a source and a target row for every type of edit."""
    _write(output, encode_png(preview(seed)))


@app.command(cls=FarmCommand)
def manifest(
    folder: Annotated[Path, typer.Option(help="Where manifest and pictures go.")],
    edits: Annotated[int, typer.Option(min=1, help="How many.")] = 8,
    seed: Seed = 7,
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = "colour,background",
) -> None:
    """Write held-out edits as a manifest with pictures, for `editfarm edit-many`."""
    path = write_scenes(folder, edits=edits, seed=seed, types=types)
    say(str(path))


@app.command(cls=FarmCommand)
def pie(
    folder: Annotated[Path, typer.Option(help="Where mapping file and pictures go.")],
    edits: Annotated[int, typer.Option(min=1, help="How many.")] = 24,
    seed: Seed = 7,
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = ",".join(EDIT_TYPES),
) -> None:
    """Write held-out edits in PIE-Bench's form, for `editfarm evaluate --benchmark pie`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_pie_scenes(folder, sample_edits(edits, seed, parse_types(types)))
    say(f"wrote {folder}")


app.command("train", cls=FarmCommand)(train)
app.command(cls=FarmCommand)(samples)
app.command(cls=FarmCommand)(attention)
app.command(cls=FarmCommand)(curves)
app.command("eval", cls=FarmCommand)(evaluate)


@app.command(cls=FarmCommand)
def merge(
    network: Annotated[Path, typer.Argument(help="folder of the network that is to have it")],
    before: Annotated[Path, typer.Option(help="the other network's folder before a training")],
    after: Annotated[Path, typer.Option(help="and after it")],
    output: Annotated[Path, typer.Option("--output", "--out", help="folder to write")],
    share: Annotated[float, typer.Option(help="of the change")] = 0.3,
) -> None:
    """Add what another network learned to one that began as the same (task arithmetic)."""
    write_with_change(network, before, after, share, output)
    say(f"wrote {output}")


@app.command(cls=FarmCommand)
def export(
    exported: Annotated[Path, typer.Option("--from", help="what `zoo train` exported")] = Path(
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
