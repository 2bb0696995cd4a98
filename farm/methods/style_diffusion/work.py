"""Work of the frozen networks, counted before it is done; `farm.calls.Meter` counts it after."""

from collections import Counter
from collections.abc import Sequence

from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.config import InversionConfig
from farm.methods.style_diffusion.schedule import shared_steps, step_choices

Work = dict[str, int]


def planned_inversion(config: InversionConfig) -> Work:
    """Work of stage 1 if no timestep is solved early; else it is the upper bound.

    DDIM inversion: T forwards. The chain: per timestep the branch that is not trained, the
    optimiser steps and the move. All at once: per timestep the empty prompt and the optimiser
    steps; then, without a chain, the source's pass. The reference takes T more for a chain (it
    computes the empty prompt twice), and as many forwards as here for all else (spec §9).
    """
    count = config.num_steps
    work = Counter({"text_forward": 2})
    if not config.generated:
        work.update(vae_encode=1, unet_forward=count)
    if config.learned == "values":
        work.update(image_forward=1)
    work.update(unet_forward=config.total_budget, unet_backward=config.total_budget)
    if config.rounds:
        work.update(unet_forward=count)
    if config.has_chain or config.learned == "nothing":
        work.update(unet_forward=2 * count)
    else:
        work.update(unet_forward=count)
    return _positive(work)


def planned_edit(
    cells: Sequence[EditCell],
    num_steps: int,
    *,
    prompted_known: bool = True,
    free_known: bool = False,
) -> Work:
    """Work of the edits of one inverted source.

    A target takes two forwards a timestep; cells that are the same so far share them. The source
    takes one more for each branch that is looked at and that the far side does not remember: it
    remembers the prompted branch from the inversion, and the other from earlier edits.

    Args:
        cells: what is to be done in one call.
        num_steps: timesteps of the inversion.
        prompted_known: whether the far side remembers the source's prompted branch.
        free_known: whether it remembers the branch without the prompt.
    """
    steps = shared_steps(cells, num_steps)
    work = Counter(
        text_forward=len({tuple(cell.plan.target.ids) for cell in cells}),
        vae_decode=1 + sum(map(len, steps[-1])),
        unet_forward=2 * sum(map(len, steps)),
    )
    for index in range(num_steps):
        choices = [step_choices(cell, index, num_steps) for cell in cells]
        prompted = any(choice.takes_prompted for choice in choices)
        free = any(choice.uncond_self_active for choice in choices)
        work["unet_forward"] += (prompted and not prompted_known) + (free and not free_known)
    return _positive(work)


def _positive(work: Counter[str]) -> Work:
    return {name: amount for name, amount in work.items() if amount}
