"""Which edits of one source are the same so far: what is the same is computed once.

Edits of a grid differ in a window's end, say: until the shorter window closes they are one edit.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from farm.methods.style_diffusion.blend import blend_active
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.windows import self_active, value_active, window_of


@dataclass(frozen=True)
class StepChoices:
    """Everything that a step of an edit depends on besides the latents and scores before it.

    Attributes:
        target: ids of the target prompt.
        learned: whether the target's values are the learned ones.
        takes_cross: whether any cross-attention of the source is taken, and how it is mapped.
        self_active: whether its self-attention is.
        uncond_self_active: the same without the prompt.
        scored: whose attention is summed; empty where nobody wants to know.
        blended: how the step ends with a blend; empty where it does not.
    """

    target: tuple[int, ...]
    learned: bool
    takes_cross: tuple[Hashable, ...]
    self_active: bool
    uncond_self_active: bool
    scored: tuple[Hashable, ...]
    blended: tuple[Hashable, ...]

    @property
    def takes_prompted(self) -> bool:
        """Whether the source's prompted branch is looked at."""
        return bool(self.takes_cross) or self.self_active


def step_choices(cell: EditCell, index: int, num_steps: int) -> StepChoices:
    """What step `index` of an edit does."""
    plan, config = cell.plan, cell.config
    row = plan.cross_alpha[index]
    cross: tuple[Hashable, ...] = ()
    if row.any():
        how = (config.edit_type, config.reference, config.equalizer)
        cross = (*how, tuple(row.tolist()))
    scored = tuple(plan.word_sets.flatten().tolist()) if is_scored(cell) else ()
    blended: tuple[Hashable, ...] = ()
    if config.local_blend and blend_active(index, num_steps, config.blend_start):
        blended = (config.blend_threshold, config.blend_pool, config.blend_grow)
        blended += (config.subtract_threshold,)
        blended += (config.shield_threshold,) if plan.kept_tokens else ()
    free = self_active(index, num_steps, window_of(config.tau_u))
    return StepChoices(
        target=tuple(plan.target.ids),
        learned=value_active(index, num_steps, config.tau_v),
        takes_cross=cross,
        self_active=self_active(index, num_steps, window_of(config.tau_s)),
        # at the first step both rows are one, unless the target's noise is new: without the prompt
        # they look alike anyway
        uncond_self_active=free and (index > 0 or config.fresh_noise > 0),
        scored=scored,
        blended=blended,
    )


def is_scored(cell: EditCell) -> bool:
    """Whether the words' attention is wanted: by the blend, or to be shown."""
    return cell.config.local_blend or cell.config.attention_map


def shared_steps(cells: Sequence[EditCell], num_steps: int) -> list[list[list[list[int]]]]:
    """For each step, what is computed, and which edits, by number, are the same at its end.

    Returns:
        Per step a list of computations; each is a list of groups of edits. The edits of one
        computation ask the same of the network; those of one group also end the step alike.
    """
    steps: list[list[list[list[int]]]] = []
    groups = _started(cells)
    for index in range(num_steps):
        choices = [step_choices(cell, index, num_steps) for cell in cells]
        asked = [part for group in groups for part in _parted(group, choices, _asked)]
        step = [_parted(group, choices, _blended) for group in asked]
        groups = [group for parts in step for group in parts]
        steps.append(step)
    return steps


def _started(cells: Sequence[EditCell]) -> list[list[int]]:
    """Edits that begin with the same latents."""
    groups: dict[Hashable, list[int]] = {}
    for number, cell in enumerate(cells):
        fresh = cell.config.fresh_noise
        groups.setdefault((fresh, cell.seed if fresh else None), []).append(number)
    return list(groups.values())


def _parted(
    group: Sequence[int],
    choices: Sequence[StepChoices],
    aspect: Callable[[StepChoices], Hashable],
) -> list[list[int]]:
    """A group in parts that agree in an aspect of their choices."""
    parts: dict[Hashable, list[int]] = {}
    for number in group:
        parts.setdefault(aspect(choices[number]), []).append(number)
    return list(parts.values())


def _asked(choices: StepChoices) -> Hashable:
    """All but how the step ends."""
    return replace(choices, blended=())


def _blended(choices: StepChoices) -> Hashable:
    return choices.blended
