"""Was the asked object drawn into the hole, and is the rest of the picture as it was?"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from farm.masks import composite, dilate, feather
from farm.metrics.psnr import psnr
from farm.zoo.judge import GRID, Judge, Reading
from farm.zoo.matching import find_objects
from farm.zoo.measures.hole_tasks import ATTRIBUTES, HoleTasks
from farm.zoo.scoring import MARGIN

_NOTHING = -20.0  # presence logit of cells that do not count
_FEATHER = 3  # pixels


@dataclass(frozen=True)
class Inpainted:
    """Decoded pictures of one sampling; nothing is pasted."""

    drawn: Float[Tensor, "tasks 3 64 64"]
    """As the UNet left the latents."""
    kept: Float[Tensor, "tasks 3 64 64"]
    """With the picture's own latents put back wherever there is no hole, as diffusers does for
    UNets that are not told of it."""


def drawn_as_asked(
    judge: Judge, drawn: Float[Tensor, "tasks 3 64 64"], tasks: HoleTasks
) -> list[dict[str, bool]]:
    """Per task which attributes the best agreeing object in the hole has right.

    `appears` is all of them at once, `there` whether there is an object at all, `background`
    whether the picture's is still what the caption says.
    """
    reading = judge(drawn)
    background = reading.background.argmax(1) == tasks.wanted.background
    inside = _only_inside(reading, tasks.holes)
    rows: list[dict[str, bool]] = []
    for i in range(len(tasks)):
        slot = int(tasks.slot[i])
        wanted = {name: int(getattr(tasks.wanted, name)[i, slot]) for name in ATTRIBUTES}
        options = [
            {name: getattr(found, name) == value for name, value in wanted.items()}
            for found in find_objects(inside, i)
        ]
        best = max(options, key=lambda o: sum(o.values()), default=dict.fromkeys(wanted, False))
        rows.append(
            {
                "appears": all(best.values()),
                "there": bool(options),
                "background": bool(background[i]),
                **best,
            }
        )
    return rows


def _only_inside(reading: Reading, holes: Float[Tensor, "tasks 1 64 64"]) -> Reading:
    """A reading that sees no object outside the holes."""
    cells = F.adaptive_avg_pool2d(holes, GRID)[:, 0] > 0.5
    return replace(reading, presence=torch.where(cells, reading.presence, _NOTHING))


def seam_figures(
    inpainted: Inpainted,
    autoencoded: Float[Tensor, "tasks 3 64 64"],
    tasks: HoleTasks,
) -> dict[str, Float[Tensor, " tasks"]]:
    """PSNR in dB against the picture where nothing should change, nan where there are no pixels.

    Outside is what is further than 4 pixels from the hole (definitions.md); `border` is the strip
    between. `bound` is the autoencoder alone on the same pixels; `drawn`, `kept` and `pasted` are
    the three results: as the UNet left it, with known latents put back, and the former pasted into
    the picture along a feathered border. `seam_loss` and `kept_seam_loss` are what they lose to the
    bound outside.
    """
    wide = dilate(tasks.holes, MARGIN)
    pasted = composite(tasks.images, inpainted.drawn, feather(tasks.holes, _FEATHER))
    results = {
        "bound": autoencoded,
        "drawn": inpainted.drawn,
        "kept": inpainted.kept,
        "pasted": pasted,
    }
    figures: dict[str, Tensor] = {}
    for name, images in results.items():
        figures[f"{name}_outside_psnr"] = psnr(images, tasks.images, 1 - wide)
        figures[f"{name}_border_psnr"] = psnr(images, tasks.images, wide - tasks.holes)
    bound = figures["bound_outside_psnr"]
    figures["seam_loss"] = bound - figures["drawn_outside_psnr"]
    figures["kept_seam_loss"] = bound - figures["kept_outside_psnr"]
    return figures
