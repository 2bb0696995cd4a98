"""Stage 2: an inversion and target prompts to edited images (P2Plus, spec §7)."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.diffusion import DiffusionClient, EditNoise, EditQuery, SourceRow
from farm.masks import differing
from farm.methods.style_diffusion.blend import blend, holds, region, shield, widen
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.conditions import conditions_of, learned_values
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.inverted import Inversion
from farm.methods.style_diffusion.plan import EditPlan
from farm.methods.style_diffusion.schedule import (
    StepChoices,
    is_scored,
    shared_steps,
    step_choices,
)
from farm.progress import Progress
from farm.samplers.ddim import Move, NoiseSchedule, ddim_step
from farm.samplers.guidance import guide
from farm.training import keyed_generator

STAGE = "style_diffusion.editing"

Ids = tuple[int, ...]
Embeds = Float[Tensor, "tokens embed"]


@dataclass(frozen=True)
class EditStep:
    """One step of editing.

    Attributes:
        latents: of source and target, after the step and its blend.
        totals: attention of each set of words so far, summed over steps; source, target.
        mask: where the target may differ, in this step; None where nothing was blended.
        clean: latents of the target as they would be without the noise still in them, as far as
            the model sees through it; None before the first step.
    """

    latents: Float[Tensor, "2 channels height width"]
    totals: Float[Tensor, "sets 2 size size"]
    mask: Bool[Tensor, "height width"] | None = None
    clean: Float[Tensor, "channels height width"] | None = None

    @property
    def scores(self) -> Float[Tensor, "2 size size"]:
        """Of the words that the blend follows."""
        return self.totals[0]


@dataclass(frozen=True)
class EditOutput:
    """What an edit gives.

    Attributes:
        image: the edited picture, in [0, 1].
        reconstruction: the source as the same sampling gives it back.
        latents: of the edited picture.
        attention: where the words that change are looked at, 0 to 1; the larger of both prompts.
            None where nobody asked.
        mask: where the edit was allowed at last (and, with `paste_threshold`, did something), 0 or
            1; None without local blend.
        figures: plain numbers about this edit.
    """

    image: Float[Tensor, "3 image_height image_width"]
    reconstruction: Float[Tensor, "3 image_height image_width"]
    latents: Float[Tensor, "channels height width"]
    attention: Float[Tensor, "image_height image_width"] | None
    mask: Float[Tensor, "image_height image_width"] | None
    figures: dict[str, float]


def edit(
    inversion: Inversion, plan: EditPlan, client: DiffusionClient, config: EditingConfig
) -> Generator[Progress, None, EditOutput]:
    """Apply the target prompt of `plan` to an inverted image: `edit_cells` of one cell."""
    (output,) = yield from edit_cells(inversion, [EditCell(plan, config)], client)
    return output


def edit_cells(
    inversion: Inversion, cells: Sequence[EditCell], client: DiffusionClient
) -> Generator[Progress, None, list[EditOutput]]:
    """Edits of one source; what they share is computed once (`schedule`, `work.planned_edit`).

    Yields:
        One `Progress` per timestep.
    """
    embeds: dict[Ids, Float[Tensor, "tokens embed"]] = {}
    for plan in (cell.plan for cell in cells):
        assert plan.source.prompt == inversion.prompt
        if tuple(plan.target.ids) not in embeds:
            embeds[tuple(plan.target.ids)] = client.embed_prompt(plan.target.ids)
    num_steps = inversion.config.num_steps
    last: list[EditStep] = []
    for count, steps in enumerate(edit_steps(inversion, cells, embeds, client), 1):
        last = steps
        clean = steps[0].clean
        preview = None if clean is None else partial(client.decode, clean)
        yield Progress(STAGE, count, num_steps, preview=preview)
    reconstruction = client.decode(inversion.state.latents)
    different = {id(step): step for step in last}
    images = {key: client.decode(step.latents[1]) for key, step in different.items()}
    return [
        _output(inversion, cell, step, images[id(step)], reconstruction)
        for cell, step in zip(cells, last, strict=True)
    ]


def edit_steps(
    inversion: Inversion,
    cells: Sequence[EditCell],
    embeds: Mapping[Ids, Float[Tensor, "tokens embed"]],
    client: DiffusionClient,
) -> Iterator[list[EditStep]]:
    """All targets from the inversion's noise to clean latents, one list per timestep.

    Cells that are the same so far have the very same `EditStep`.

    Args:
        inversion: of the source.
        cells: what to do.
        embeds: embeddings of each target prompt, by its ids.
        client: the frozen model.
    """
    num_steps = inversion.config.num_steps
    moves = NoiseSchedule.from_spec(client.spec).denoising(num_steps)
    conditions = conditions_of(inversion)
    values = {ids: learned_values(inversion, text) for ids, text in embeds.items()}
    size = client.spec.map_size
    steps = [
        EditStep(
            _start(inversion.state.chain[0], cell), torch.zeros(_num_sets(cell), 2, size, size)
        )
        for cell in cells
    ]
    for index, computed in enumerate(shared_steps(cells, num_steps)):
        origin = SourceRow(
            inversion.state.chain[index], conditions.source[index], conditions.source_values[index]
        )
        queries: list[EditQuery] = []
        for number in (groups[0][0] for groups in computed):
            choices = step_choices(cells[number], index, num_steps)
            learned, text = values[choices.target][index], embeds[choices.target]
            texts = (conditions.uncond[index], text, learned if choices.learned else text)
            plan, latents = cells[number].plan, steps[number].latents[1]
            queries.append(_query(plan, choices, latents, texts, origin, moves[index], index))
        for groups, answer in zip(computed, client.edit_noises(queries), strict=True):
            for first, *others in groups:
                step = _moved(inversion, cells[first], steps[first], answer, moves[index], index)
                for number in (first, *others):
                    steps[number] = step
        yield list(steps)


def _start(
    inverted: Float[Tensor, "channels height width"], cell: EditCell
) -> Float[Tensor, "2 channels height width"]:
    """Where source and target begin; of the target's noise a share may be new (D13)."""
    share = cell.config.fresh_noise
    if share == 0:
        return torch.stack([inverted, inverted])
    drawn = torch.randn(inverted.shape, generator=keyed_generator(STAGE, "fresh", cell.seed))
    # two independent unit-variance parts: the sum has the variance that the model expects
    return torch.stack([inverted, (1 - share) ** 0.5 * inverted + share**0.5 * drawn])


def _num_sets(cell: EditCell) -> int:
    return len(cell.plan.word_sets) if is_scored(cell) else 0


def _query(
    plan: EditPlan,
    choices: StepChoices,
    latents: Float[Tensor, "channels height width"],
    texts: tuple[Embeds, Embeds, Embeds],
    source: SourceRow,
    move: Move,
    index: int,
) -> EditQuery:
    """One target's step; `texts` are the empty prompt, the target's keys and its values."""
    uncond, keys, values = texts
    return EditQuery(
        latents=latents,
        timestep=move.timestep,
        embeds=keys,
        uncond_embeds=uncond,
        value_embeds=values,
        source=source,
        mapper=plan.token_map.mapper,
        refine_alpha=plan.token_map.alpha,
        equalizer=plan.equalizer,
        cross_alpha=plan.cross_alpha[index],
        self_active=choices.self_active,
        uncond_self_active=choices.uncond_self_active,
        score_tokens=plan.word_sets[:, 1] if choices.scored else None,
    )


def _moved(
    inversion: Inversion,
    cell: EditCell,
    before: EditStep,
    answer: EditNoise,
    move: Move,
    index: int,
) -> EditStep:
    """The step that a target's noise makes, blended with where the source is then."""
    config, state = cell.config, inversion.state
    noise = guide(answer.uncond, answer.cond, inversion.config.guidance_scale)
    target = ddim_step(before.latents[1], noise, move.alpha, move.alpha_to)
    clean = ddim_step(before.latents[1], noise, move.alpha, 1.0)
    latents = torch.stack([state.chain[index + 1], target])
    totals = before.totals
    if answer.scores is not None:
        source = cell.plan.word_sets[:, 0] @ state.token_maps[index].T
        totals = totals + torch.stack([source.view_as(answer.scores), answer.scores], dim=1)
    if not step_choices(cell, index, inversion.config.num_steps).blended:
        return EditStep(latents, totals, clean=clean)
    height = latents.shape[-1]
    shielded = held = None
    if cell.plan.kept_tokens:
        kept = totals[-len(cell.plan.kept_tokens) :]
        each = shield(totals[0], kept, config.shield_threshold)
        shielded = each.any(dim=0)
        held = (each & holds(kept, config.shield_threshold)).any(dim=0)
    wide = widen(totals[0], config.blend_pool)
    mask = region(wide, config.blend_threshold, height, shielded, grow=config.blend_grow, held=held)
    if cell.plan.subtract_tokens is not None:
        mask = mask & ~region(totals[1], config.subtract_threshold, height)
    seen = blend(torch.stack([state.trajectory[0], clean]), mask)[1]
    return EditStep(blend(latents, mask), totals, mask, seen)


def _output(
    inversion: Inversion,
    cell: EditCell,
    step: EditStep,
    image: Float[Tensor, "3 image_height image_width"],
    reconstruction: Float[Tensor, "3 image_height image_width"],
) -> EditOutput:
    size = (image.shape[-2], image.shape[-1])
    mask = None if step.mask is None else _enlarge(step.mask.float(), size, "nearest")
    if mask is not None and step.mask is not None and cell.config.paste_threshold > 0:
        # a little less than a latent's cell of pixels (D12)
        window = max(1, size[0] // step.mask.shape[0] // 2 * 2 - 1)
        mask = mask * differing(image, reconstruction, cell.config.paste_threshold, window)[0]
    source, target = step.latents
    figures = {
        "latent_change": (target - source).square().mean().sqrt().item(),
        "reconstruction_error": (source - inversion.state.trajectory[0]).square().mean().item(),
    }
    if mask is not None:
        figures["mask_share"] = mask.mean().item()
    attention = None
    if is_scored(cell):
        attention = _enlarge(_normalised(step.scores), size, "bilinear")
    return EditOutput(image, reconstruction, target, attention, mask, figures)


def _normalised(scores: Float[Tensor, "2 size size"]) -> Float[Tensor, "size size"]:
    greatest = scores.amax(dim=(1, 2), keepdim=True)
    # a prompt without blend words has no scores at all
    return (scores / greatest.clamp_min(torch.finfo(scores.dtype).tiny)).amax(dim=0)


def _enlarge(
    map_: Float[Tensor, "height width"], size: tuple[int, int], mode: str
) -> Float[Tensor, "image_height image_width"]:
    return F.interpolate(map_[None, None], size=size, mode=mode)[0, 0]
