"""Sources that the model draws itself, and plain DDIM, which learns as little."""

import pytest
import torch
from diffusers import DDIMScheduler

from farm.diffusion import NoiseQuery
from farm.methods.style_diffusion.cells import EditCell
from farm.methods.style_diffusion.config import EditingConfig
from farm.methods.style_diffusion.editing import edit_cells
from farm.methods.style_diffusion.plan import plan_prompts
from farm.methods.style_diffusion.sampling import reconstruct
from tests.farm.methods.style_diffusion.runs import CONFIG, SOURCE, TARGET, inverted, metered_client
from tests.stages import finish
from tests.tiny import tiny_tokenizer

DRAWN = CONFIG.model_copy(update={"generated": True, "learned": "nothing"})
PLAIN = CONFIG.model_copy(update={"learned": "nothing"})
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def drawn():
    client, meter = metered_client()
    reports, inversion = inverted(client, DRAWN)
    return reports, inversion, client, dict(meter.work)


def test_no_image_is_looked_at(drawn):
    _, _, _, work = drawn
    assert not {"vae_encode", "image_forward"} & set(work)


def test_the_source_is_guided_sampling_from_noise(drawn):
    """diffusers' scheduler on the same predictions."""
    _, inversion, client, _ = drawn
    oracle = DDIMScheduler(
        beta_start=client.spec.beta_start,
        beta_end=client.spec.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    oracle.set_timesteps(DRAWN.num_steps)
    state = inversion.state
    latents = state.chain[0]
    for timestep, expected in zip(oracle.timesteps.tolist(), state.chain[1:], strict=True):
        cond = client.noise(NoiseQuery(latents, timestep, state.source_embeds))
        uncond = client.noise(NoiseQuery(latents, timestep, state.uncond_embeds))
        noise = uncond + DRAWN.guidance_scale * (cond - uncond)
        latents = oracle.step(noise, timestep, latents).prev_sample
        torch.testing.assert_close(latents, expected, **CLOSE)
    assert torch.equal(state.trajectory, state.chain.flip(0))


def test_the_seed_is_the_picture(drawn):
    _, inversion, _, _ = drawn
    _, again = inverted(metered_client()[0], DRAWN)
    _, other = inverted(metered_client()[0], DRAWN, seed=1)
    assert torch.equal(again.state.chain, inversion.state.chain)
    assert not torch.equal(other.state.chain[0], inversion.state.chain[0])
    # 256 draws of a normal: mean and deviation within four standard errors
    noise = inversion.state.chain[0]
    assert abs(noise.mean()) < 4 / 16
    assert abs(noise.std() - 1) < 4 / (2 * 256) ** 0.5


def test_it_can_be_edited(drawn):
    _, inversion, client, _ = drawn
    config = EditingConfig(tau_u=0.5)
    plan = plan_prompts(tiny_tokenizer(), SOURCE, TARGET, config, CONFIG.num_steps)
    _, (output,) = finish(edit_cells(inversion, [EditCell(plan, config)], client))
    assert torch.equal(output.reconstruction, client.decode(inversion.state.chain[-1]))
    assert output.figures["reconstruction_error"] == 0
    assert output.figures["latent_change"] > 0.01


@pytest.mark.parametrize("config", [DRAWN, PLAIN], ids=["generated", "plain"])
def test_resumed_anywhere_it_is_the_same(config):
    reports, inversion = inverted(metered_client()[0], config)
    stored = [report.checkpoint for report in reports if report.checkpoint is not None]
    assert len(stored) >= CONFIG.num_steps
    for checkpoint in stored:
        back = type(checkpoint).from_tensors(checkpoint.to_tensors())
        _, again = inverted(metered_client()[0], config, checkpoint=back)
        expected = inversion.to_tensors()
        assert all(torch.equal(t, expected[n]) for n, t in again.to_tensors().items())


def test_plain_ddim_is_the_baseline_s_reconstruction():
    client, _ = metered_client()
    _, inversion = inverted(client, PLAIN)
    torch.testing.assert_close(inversion.state.latents, reconstruct(inversion, client), **CLOSE)
    assert inversion.state.networks == ()
