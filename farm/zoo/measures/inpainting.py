"""Does the inpainting UNet draw into a hole what the caption says, and keep the rest."""

import torch

from farm.zoo.judge import load_judge
from farm.zoo.measures.bench import Bench, Figures, by_group, combinations, stacked
from farm.zoo.measures.hole_scores import drawn_as_asked, seam_figures
from farm.zoo.measures.hole_tasks import KINDS, hole_tasks
from farm.zoo.recipes.inpainting import InpaintingRecipe


def measure_inpainting(bench: Bench) -> Figures:
    """Attributes of the object in the hole as asked, and PSNR outside it, by kind of task.

    DDIM of 20 steps, guidance 4; the judge reads whole decoded pictures, as the UNet left them.
    """
    recipe = InpaintingRecipe(networks=bench.networks)
    unet, judge = recipe.load(bench.networks), load_judge(bench.networks)
    autoencoder = recipe.diffusion.autoencoder()
    tasks = hole_tasks(bench.cases, bench.seed)
    rows: list[dict[str, float]] = []
    for number, chunk in enumerate(bench.chunks("inpainting")):
        part = tasks[chunk]
        inpainted = recipe.sample(unet, part, seed=10_000 * bench.seed + number)
        with torch.no_grad():
            autoencoded = autoencoder.decode(autoencoder.encode(part.images))
        seams = seam_figures(inpainted, autoencoded, part)
        for i, row in enumerate(drawn_as_asked(judge, inpainted.drawn, part)):
            seam = {name: values[i].item() for name, values in seams.items()}
            rows.append({**{name: float(value) for name, value in row.items()}, **seam})
    groups = combinations(tasks.wanted.held_out())
    groups |= {kind: torch.tensor([k == kind for k in tasks.kinds]) for kind in KINDS}
    return by_group(stacked(rows), groups)
