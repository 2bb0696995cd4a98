"""Pictures of the zoo's networks: samples, attention and training curves.

editfarm zoo samples unet --seed 5 --output samples.png
editfarm zoo attention unet --seed 5 --output attention.png
editfarm zoo curves out/zoo/unet.curve.jsonl --output curves.png
"""

import io
from pathlib import Path
from typing import Annotated

import torch
import typer
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.images import encode_png
from farm.zoo.measures.bench import Bench
from farm.zoo.measures.pictures import attention_grid, inpainting_grid, text_to_image_grid
from farm.zoo.recipes.curves import read_curve
from farm.zoo.weights import SCENES_FOLDER
from jobs.console import say, write_file
from jobs.curve_plot import plot_curves
from jobs.palette_png import palette_png

Output = Annotated[Path, typer.Option("--output", "--out", help="PNG file to write")]
Seed = Annotated[int, typer.Option(min=0, help="held-out seed")]
Networks = Annotated[Path, typer.Option(help="folder of networks")]


def samples(
    part: Annotated[
        str, typer.Argument(help="unet, unet-ungrounded, inpainting or infinity")
    ] = "unet",
    output: Output = Path("out/samples.png"),
    seed: Seed = 5,
    two_share: Annotated[
        float, typer.Option(min=0, max=1, help="share of prompts with two objects")
    ] = 0.5,
    networks: Networks = SCENES_FOLDER,
) -> None:
    """Draw the first 64 prompts, or inpainting tasks, of a seed, not chosen."""
    bench = Bench(networks, seed=seed)
    check_part(networks, part)
    with torch.no_grad():
        if part == "inpainting":
            picture = inpainting_grid(bench)
        else:
            picture = text_to_image_grid(bench, part, two_share=two_share)
    _write(output, picture)


def attention(
    part: Annotated[str, typer.Argument(help="unet or unet-ungrounded")] = "unet",
    output: Output = Path("out/attention.png"),
    seed: Seed = 5,
    networks: Networks = SCENES_FOLDER,
) -> None:
    """Light up where the words of the first 32 scenes of a seed look, not chosen."""
    check_part(networks, part)
    _write(output, attention_grid(Bench(networks, seed=seed), part))


def curves(
    files: Annotated[list[Path], typer.Argument(help="<part>.curve.jsonl files")],
    output: Output = Path("out/curves.png"),
) -> None:
    """Plot training curves that `editfarm zoo train` wrote beside its checkpoints."""
    named = [(path.name.removesuffix(".curve.jsonl"), read_curve(path)) for path in files]
    write_file(output, plot_curves(named))
    say(f"wrote {output}")


def _write(output: Path, picture: Float[Tensor, "3 height width"]) -> None:
    write_file(output, palette_png(Image.open(io.BytesIO(encode_png(picture)))))
    say(f"wrote {output}")


def check_part(networks: Path, part: str) -> None:
    """Whether the part lies in the folder.

    Raises:
        InvalidRequestError: it does not.
    """
    if not (networks / part).is_dir():
        raise InvalidRequestError(
            f"no {part} in {networks}: train it, or give another folder with --networks"
        )
