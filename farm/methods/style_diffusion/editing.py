"""Stage 2: an inversion and a target prompt to an edited image (P2Plus, spec §7)."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.diffusion import DiffusionClient, EditQuery, NoiseQuery
from farm.methods.style_diffusion.blend import blend, blend_active, region, widen
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.inverted import Inversion
from farm.methods.style_diffusion.mapping_network import output_of, value_input
from farm.methods.style_diffusion.plan import EditPlan
from farm.methods.style_diffusion.windows import self_active, value_active
from farm.progress import Progress
from farm.samplers.ddim import NoiseSchedule, ddim_step
from farm.samplers.guidance import guide

STAGE = "style_diffusion.editing"


@dataclass(frozen=True)
class EditStep:
    """One step of editing.

    Attributes:
        latents: of source and target, after the step and its blend.
        scores: attention of the blend words so far, summed over steps; source, target.
        mask: where the target may differ, in this step; None where nothing was blended.
    """

    latents: Float[Tensor, "2 channels height width"]
    scores: Float[Tensor, "2 size size"]
    mask: Bool[Tensor, "height width"] | None


@dataclass(frozen=True)
class EditOutput:
    """What an edit gives.

    Attributes:
        image: the edited picture, in [0, 1].
        reconstruction: the source as the same sampling gives it back.
        latents: of the edited picture.
        attention: where the words that change are looked at, 0 to 1; the larger of both prompts.
        mask: where the edit was allowed at last, 0 or 1; None without local blend.
        figures: plain numbers about this edit.
    """

    image: Float[Tensor, "3 image_height image_width"]
    reconstruction: Float[Tensor, "3 image_height image_width"]
    latents: Float[Tensor, "channels height width"]
    attention: Float[Tensor, "image_height image_width"]
    mask: Float[Tensor, "image_height image_width"] | None
    figures: dict[str, float]


def edit(
    inversion: Inversion, plan: EditPlan, client: DiffusionClient, config: EditingConfig
) -> Generator[Progress, None, EditOutput]:
    """Apply the target prompt of `plan` to an inverted image.

    Costs T calls for a (source, target) pair of both branches, one embedding and two decodings.

    Yields:
        One `Progress` per timestep.
    """
    assert plan.source.prompt == inversion.prompt
    target_embeds = client.embed_prompt(plan.target.ids)
    num_steps = inversion.config.num_steps
    last = None
    for count, step in enumerate(edit_steps(inversion, target_embeds, plan, client, config), 1):
        yield Progress(STAGE, count, num_steps)
        last = step
    assert last is not None
    size = (client.spec.image_size, client.spec.image_size)
    mask = None if last.mask is None else _enlarge(last.mask.float(), size, "nearest")
    source, target = last.latents
    figures = {
        "latent_change": (target - source).square().mean().sqrt().item(),
        "reconstruction_error": (source - inversion.state.trajectory[0]).square().mean().item(),
    }
    if mask is not None:
        figures["mask_share"] = mask.mean().item()
    return EditOutput(
        image=client.decode(target),
        reconstruction=client.decode(source),
        latents=target,
        attention=_enlarge(_normalised(last.scores), size, "bilinear"),
        mask=mask,
        figures=figures,
    )


def edit_steps(
    inversion: Inversion,
    target_embeds: Float[Tensor, "tokens embed"],
    plan: EditPlan,
    client: DiffusionClient,
    config: EditingConfig,
) -> Iterator[EditStep]:
    """Both rows from the inversion's noise to clean latents, one `EditStep` per timestep."""
    num_steps, guidance_scale = inversion.config.num_steps, inversion.config.guidance_scale
    state, spec = inversion.state, client.spec
    learned_source = learned_values(inversion, state.source_embeds)
    learned_target = learned_values(inversion, target_embeds)
    latents = torch.stack([state.trajectory[-1]] * 2)
    scores = torch.zeros(2, spec.map_size, spec.map_size)
    for index, move in enumerate(NoiseSchedule.from_spec(spec).denoising(num_steps)):
        learned = value_active(index, num_steps, config.tau_v)
        target_values = learned_target[index] if learned else target_embeds
        query = EditQuery(
            latents=latents,
            timestep=move.timestep,
            embeds=torch.stack([state.source_embeds, target_embeds]),
            uncond_embeds=state.uncond_embeds,
            value_embeds=torch.stack([learned_source[index], target_values]),
            mapper=plan.token_map.mapper,
            refine_alpha=plan.token_map.alpha,
            equalizer=plan.equalizer,
            cross_alpha=plan.cross_alpha[index],
            self_active=self_active(index, num_steps, (0.0, config.tau_s)),
            uncond_self_active=self_active(index, num_steps, (0.0, config.tau_u)),
            blend_tokens=plan.blend_tokens,
        )
        answer = client.edit_noise(query)
        noise = guide(answer.uncond, answer.cond, guidance_scale)
        latents = ddim_step(latents, noise, move.alpha, move.alpha_to)
        scores = scores + answer.scores
        mask = None
        if config.local_blend and blend_active(index, num_steps, config.blend_start):
            wide = widen(scores, config.blend_pool)
            mask = region(wide, config.blend_threshold, latents.shape[-1])
            latents = blend(latents, mask)
        yield EditStep(latents, scores, mask)


def learned_values(
    inversion: Inversion, embeds: Float[Tensor, "tokens embed"]
) -> Float[Tensor, "steps tokens embed"]:
    """The learned value input of every timestep for a text."""
    features = inversion.state.image_tokens
    outputs = [output_of(network, features) for network in inversion.state.networks]
    return torch.stack([value_input(output, embeds) for output in outputs])


def reconstruct(
    inversion: Inversion,
    client: DiffusionClient,
    values: Float[Tensor, "steps tokens embed"] | None = None,
) -> Float[Tensor, "channels height width"]:
    """Guided sampling of the source prompt from the inversion's noise; decode it to see it.

    Without `values` the text feeds the values too: plain DDIM at the same guidance, the baseline
    that inversion is measured against. With `learned_values` of the source prompt it is the
    method's own reconstruction.
    """
    state, config = inversion.state, inversion.config
    latents = state.trajectory[-1]
    for index, move in enumerate(NoiseSchedule.from_spec(client.spec).denoising(config.num_steps)):
        value_embeds = None if values is None else values[index]
        uncond, cond = client.noises(
            [
                NoiseQuery(latents, move.timestep, state.uncond_embeds),
                NoiseQuery(latents, move.timestep, state.source_embeds, value_embeds),
            ]
        )
        noise = guide(uncond, cond, config.guidance_scale)
        latents = ddim_step(latents, noise, move.alpha, move.alpha_to)
    return latents


def _normalised(scores: Float[Tensor, "2 size size"]) -> Float[Tensor, "size size"]:
    greatest = scores.amax(dim=(1, 2), keepdim=True)
    # a prompt without blend words has no scores at all
    return (scores / greatest.clamp_min(torch.finfo(scores.dtype).tiny)).amax(dim=0)


def _enlarge(
    map_: Float[Tensor, "height width"], size: tuple[int, int], mode: str
) -> Float[Tensor, "image_height image_width"]:
    return F.interpolate(map_[None, None], size=size, mode=mode)[0, 0]
