from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from farm.diffusion import NoiseQuery
from farm.methods.style_diffusion import editing
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.conditions import learned_values
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.editing import edit, edit_cells, edit_steps
from farm.methods.style_diffusion.plan import plan_prompts
from farm.methods.style_diffusion.sampling import reconstruct
from tests.farm.methods.style_diffusion.runs import CONFIG, SOURCE, TARGET, inverted, metered_client
from tests.stages import finish
from tests.tiny import tiny_tokenizer

# rounding of a few moves in batches of other sizes than the value that is compared with
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def inversion():
    return inverted(metered_client()[0])[1]


def cell_of(config, target=TARGET):
    plan = plan_prompts(tiny_tokenizer(), SOURCE, target, config, CONFIG.num_steps)
    return EditCell(plan, config)


def edited(inversion, client, config, target=TARGET):
    plan = plan_prompts(tiny_tokenizer(), SOURCE, target, config, CONFIG.num_steps)
    return finish(edit(inversion, plan, client, config))


def steps_of(inversion, client, config, target=TARGET):
    cell = cell_of(config, target)
    ids = tuple(cell.plan.target.ids)
    embeds = {ids: client.embed_prompt(ids)}
    return [step for (step,) in edit_steps(inversion, [cell], embeds, client)]


def test_progress_counts_timesteps(inversion):
    reports, _ = edited(inversion, metered_client()[0], EditingConfig())
    assert [(r.step, r.total) for r in reports] == [(n, 4) for n in range(1, 5)]


def test_fresh_noise_mixes_the_start_and_leaves_the_source_where_it_was(inversion):
    """A quarter new: the difference to sqrt(3)/2 of the inverted noise is half of unit noise."""
    client, _ = metered_client()
    inverted_noise = inversion.state.chain[0]
    start = editing._start(inverted_noise, cell_of(EditingConfig(fresh_noise=0.25)))
    assert torch.equal(start[0], inverted_noise)
    drawn = 2 * (start[1] - 0.75**0.5 * inverted_noise)
    # means of n unit normals and of their squares stray by 1/sqrt(n) and sqrt(2/n): five of each
    assert abs(drawn.mean()) < 5 / drawn.numel() ** 0.5
    assert abs(drawn.square().mean() - 1) < 5 * (2 / drawn.numel()) ** 0.5
    source = [s.latents[0] for s in steps_of(inversion, client, EditingConfig(fresh_noise=0.5))]
    kept = [s.latents[0] for s in steps_of(inversion, client, EditingConfig())]
    assert torch.equal(torch.stack(source), torch.stack(kept))


def test_fresh_noise_repeats_by_seed_alone(inversion):
    config = EditingConfig(fresh_noise=0.5, local_blend=False)
    first, again = (edited(inversion, metered_client()[0], config)[1].latents for _ in range(2))
    assert torch.equal(first, again)
    other = replace(cell_of(config), seed=1)
    _, (output,) = finish(edit_cells(inversion, [other], metered_client()[0]))
    assert not torch.equal(output.latents, first)


def test_cells_with_noise_of_their_own_share_no_step(inversion):
    """One cell inverted, one fresh: each as if it were alone."""
    configs = [EditingConfig(), EditingConfig(fresh_noise=0.5)]
    client, _ = metered_client()
    _, together = finish(edit_cells(inversion, [cell_of(c) for c in configs], client))
    for config, output in zip(configs, together, strict=True):
        _, alone = edited(inversion, metered_client()[0], config)
        torch.testing.assert_close(output.latents, alone.latents, **CLOSE)
    assert not torch.allclose(together[0].latents, together[1].latents, **CLOSE)


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
    """The chain that training left is where sampling with the learned values goes."""
    client, _ = metered_client()
    values = learned_values(inversion, inversion.state.source_embeds)
    expected = reconstruct(inversion, client, values)
    found = steps_of(inversion, client, EditingConfig())[-1].latents[0]
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
        # rows of other batches: a closed window is computed by itself
        same = torch.allclose(long[index].latents[1], short[index].latents[1], **CLOSE)
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


def test_words_to_subtract_are_left_alone(inversion):
    """Where nothing is above a threshold of 1 nothing is taken; at 0 everything is."""
    client, _ = metered_client()
    words = {"source_subtract": ("a",), "target_subtract": ("a",), "blend_threshold": 0.1}
    plain = steps_of(inversion, client, EditingConfig(blend_threshold=0.1))[-1]
    none = steps_of(inversion, client, EditingConfig(**words, subtract_threshold=1.0))[-1]
    all_of_it = steps_of(inversion, client, EditingConfig(**words, subtract_threshold=0.0))[-1]
    assert plain.mask.any()
    assert torch.equal(none.mask, plain.mask)
    assert not all_of_it.mask.any()
    source, target = all_of_it.latents
    assert torch.equal(source, target)


def test_without_blend_and_picture_of_attention_no_map_is_made(inversion):
    client, _ = metered_client()
    config = EditingConfig(local_blend=False, attention_map=False)
    plain = EditingConfig(local_blend=False)
    _, output = edited(inversion, client, config)
    assert output.attention is None
    assert all(len(step.totals) == 0 for step in steps_of(inversion, client, config))
    _, shown = edited(inversion, client, plain)
    assert shown.attention is not None
    torch.testing.assert_close(output.latents, shown.latents, **CLOSE)


def test_a_weight_of_a_word_changes_the_picture_of_one_prompt(inversion):
    """Reweight alone: nothing but the attention to a word is another."""
    client, _ = metered_client()
    everything = {"tau_v": 1.0, "tau_c": 1.0, "tau_s": 1.0, "tau_u": 1.0, "local_blend": False}
    same = EditingConfig(**everything, equalizer=(("cat", 1.0),))
    source, target = steps_of(inversion, client, same, target=SOURCE)[-1].latents
    torch.testing.assert_close(target, source, **CLOSE)
    heavy = EditingConfig(**everything, equalizer=(("cat", 4.0),))
    source, target = steps_of(inversion, client, heavy, target=SOURCE)[-1].latents
    assert (target - source).abs().max() > 0.01


def test_a_word_of_its_own_window_is_another_edit(inversion):
    client, _ = metered_client()
    alone = steps_of(inversion, client, EditingConfig(local_blend=False))
    word = EditingConfig(local_blend=False, cross_windows=(("dog", (0.0, 0.0)),))
    apart = steps_of(inversion, client, word)
    assert not torch.allclose(alone[0].latents[1], apart[0].latents[1], **CLOSE)


def test_several_edits_are_each_as_if_alone(inversion):
    """Two targets and two windows in one call, in one batch of calls a step."""
    client, _ = metered_client()
    cells = [
        cell_of(EditingConfig(tau_c=tau, tau_u=0.5), target)
        for target in (TARGET, "a green dog sitting")
        for tau in (0.2, 0.8)
    ]
    _, outputs = finish(edit_cells(inversion, cells, client))
    assert len({output.latents.sum().item() for output in outputs}) == 4
    for cell, output in zip(cells, outputs, strict=True):
        _, (alone,) = finish(edit_cells(inversion, [cell], metered_client()[0]))
        torch.testing.assert_close(output.image, alone.image, **CLOSE)
        assert torch.equal(output.mask, alone.mask)


def test_one_word_is_prompt_enough(inversion):
    """1-word mode: the prompt is a noun; nothing else is different (spec §6)."""
    client, _ = metered_client()
    config = EditingConfig()
    _, short = inverted(client, source="cat")
    plan = plan_prompts(tiny_tokenizer(), "cat", "dog", config, CONFIG.num_steps)
    _, output = finish(edit(short, plan, client, config))
    assert output.mask is not None
    assert output.figures["latent_change"] > 0


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
