from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from farm.diffusion import NoiseQuery
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.editing import edit, edit_steps, learned_values, reconstruct
from farm.methods.style_diffusion.plan import plan_prompts
from tests.farm.methods.style_diffusion.runs import (
    CONFIG,
    SOURCE,
    TARGET,
    finish,
    inverted,
    metered_client,
)
from tests.tiny import tiny_tokenizer

# rounding of a few moves in batches of other sizes than the value that is compared with
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def inversion():
    return inverted(metered_client()[0])[1]


def edited(inversion, client, config, target=TARGET):
    plan = plan_prompts(tiny_tokenizer(), SOURCE, target, config, CONFIG.num_steps)
    return finish(edit(inversion, plan, client, config))


def steps_of(inversion, client, config, target=TARGET):
    plan = plan_prompts(tiny_tokenizer(), SOURCE, target, config, CONFIG.num_steps)
    embeds = client.embed_prompt(plan.target.ids)
    return list(edit_steps(inversion, embeds, plan, client, config))


def test_an_edit_needs_no_inversion_call(inversion):
    client, meter = metered_client()
    reports, _ = edited(inversion, client, EditingConfig())
    assert meter.work == {
        "text_forward": 1,
        "unet_forward": 4 * CONFIG.num_steps,
        "vae_decode": 2,
    }
    assert [(r.step, r.total) for r in reports] == [(n, 4) for n in range(1, 5)]


def test_output_is_complete(inversion):
    client, _ = metered_client()
    _, output = edited(inversion, client, EditingConfig())
    size = client.spec.image_size
    assert output.image.shape == output.reconstruction.shape == (3, size, size)
    assert torch.equal(output.image, client.decode(output.latents))
    assert output.attention.shape == (size, size)
    assert 0 <= output.attention.min() <= output.attention.max() <= 1
    assert output.mask is not None
    assert output.mask.shape == (size, size)
    assert set(output.mask.unique().tolist()) <= {0.0, 1.0}
    assert output.figures["mask_share"] == pytest.approx(output.mask.mean().item())


def test_the_source_row_is_the_reconstruction(inversion):
    """Whatever is done to the target, row 0 is the method's own reconstruction."""
    client, _ = metered_client()
    values = learned_values(inversion, inversion.state.source_embeds)
    expected = reconstruct(inversion, client, values)
    for config in (EditingConfig(), EditingConfig(tau_v=1, tau_c=1, tau_s=1, tau_u=1)):
        found = steps_of(inversion, client, config)[-1].latents[0]
        torch.testing.assert_close(found, expected, **CLOSE)


def test_target_with_everything_taken_from_the_source_is_the_source(inversion):
    """The same prompt, or the target's maps without its values."""
    client, _ = metered_client()
    config = EditingConfig(tau_v=1, tau_c=1, tau_s=1, tau_u=1, local_blend=False)
    source, target = steps_of(inversion, client, config, target=SOURCE)[-1].latents
    torch.testing.assert_close(target, source, **CLOSE)
    source, target = steps_of(inversion, client, config)[-1].latents
    assert (target - source).abs().max() > 0.01


@pytest.mark.parametrize("name", ["tau_v", "tau_c", "tau_s", "tau_u"])
def test_each_window_changes_the_target_from_its_end_on(inversion, name):
    """Until a shorter window closes, both edits are one; from there on they part."""
    client, _ = metered_client()
    base = {"tau_v": 0.0, "tau_c": 0.0, "tau_s": 0.0, "tau_u": 0.0, "local_blend": False}
    long = steps_of(inversion, client, EditingConfig(**(base | {name: 1.0})))
    short = steps_of(inversion, client, EditingConfig(**(base | {name: 0.5})))
    for index in range(CONFIG.num_steps):
        same = torch.equal(long[index].latents[1], short[index].latents[1])
        assert same == (index < CONFIG.num_steps // 2)
        assert torch.equal(long[index].latents[0], short[index].latents[0])


def test_outside_the_mask_nothing_changes(inversion):
    client, _ = metered_client()
    config = EditingConfig(blend_threshold=0.999, blend_start=0.5)
    first, *_, last = steps_of(inversion, client, config)
    assert first.mask is None  # int(0.5 · 4): blending begins with the third step
    assert last.mask is not None
    assert 0 < last.mask.sum() < last.mask.numel()
    source, target = last.latents
    assert torch.equal(target[:, ~last.mask], source[:, ~last.mask])
    assert (target - source)[:, last.mask].abs().max() > 0.01


def test_scores_add_up_over_steps(inversion):
    client, _ = metered_client()
    steps = steps_of(inversion, client, EditingConfig())
    for before, after in pairwise(steps):
        assert (after.scores >= before.scores).all()
        assert (after.scores > before.scores).any()


def test_without_local_blend_there_is_no_mask(inversion):
    _, output = edited(inversion, metered_client()[0], EditingConfig(local_blend=False))
    assert output.mask is None
    assert "mask_share" not in output.figures


def test_plain_reconstruction_is_guided_ddim(inversion):
    """diffusers' scheduler on the same predictions."""
    client, meter = metered_client()
    oracle = DDIMScheduler(
        beta_start=client.spec.beta_start,
        beta_end=client.spec.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    oracle.set_timesteps(CONFIG.num_steps)
    state = inversion.state
    latents = state.trajectory[-1]
    for timestep in oracle.timesteps.tolist():
        cond = client.noise(NoiseQuery(latents, timestep, state.source_embeds))
        uncond = client.noise(NoiseQuery(latents, timestep, state.uncond_embeds))
        noise = uncond + CONFIG.guidance_scale * (cond - uncond)
        latents = oracle.step(noise, timestep, latents).prev_sample
    meter.work.clear()
    torch.testing.assert_close(reconstruct(inversion, client), latents, **CLOSE)
    assert meter.work == {"unet_forward": 2 * CONFIG.num_steps}
