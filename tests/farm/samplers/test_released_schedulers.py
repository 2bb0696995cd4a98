"""The farm's noise levels against the schedulers that Stable Diffusion's checkpoints name."""

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from farm.model_spec import ModelSpec
from farm.samplers.ddim import NoiseSchedule
from farm.zoo.released_sets import spec_for

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""`scheduler_config.json` of Stable Diffusion 1.4, 1.5 and 2-inpainting, besides the class."""


def pndm():
    return PNDMScheduler(**SD, skip_prk_steps=True)


def ddim(**changed):
    return DDIMScheduler(**(SD | changed), clip_sample=False)


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> ModelSpec:
    return spec_for("sd15", tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize("scheduler", [pndm, ddim])
def test_levels_are_the_scheduler_s(spec, scheduler):
    found = NoiseSchedule.from_spec(spec).alphas_cumprod
    assert torch.equal(found, scheduler().alphas_cumprod)


@pytest.mark.parametrize("steps", [20, 30, 50])
def test_timesteps_are_pndm_s_but_for_the_one_that_it_takes_twice(spec, steps):
    oracle = pndm()
    oracle.set_timesteps(steps)
    taken = oracle.timesteps.tolist()
    assert len(taken) == steps + 1, "51 calls for 50 steps"
    assert sorted(set(taken), reverse=True) == NoiseSchedule.from_spec(spec).timesteps(steps)
    twice = [t for t in set(taken) if taken.count(t) == 2]
    assert len(twice) == 1


@pytest.mark.parametrize("offset", [0, 1])
def test_the_offset_is_added_to_every_timestep(spec, offset):
    schedule = NoiseSchedule.from_spec(spec.model_copy(update={"steps_offset": offset}))
    oracle = ddim(steps_offset=offset)
    oracle.set_timesteps(50)
    assert schedule.timesteps(50) == oracle.timesteps.tolist()
    assert schedule.timesteps(50)[-1] == offset


def test_a_clean_image_is_the_first_level_as_set_alpha_to_one_false_says(spec):
    schedule = NoiseSchedule.from_spec(spec)
    last = schedule.denoising(50)[-1]
    assert last.alpha_to == float(ddim().final_alpha_cumprod) == schedule.alpha_at(0)
    assert float(ddim(set_alpha_to_one=True).final_alpha_cumprod) == 1.0 != last.alpha_to


def test_the_last_step_is_the_library_s(spec):
    z, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    oracle = ddim()
    oracle.set_timesteps(50)
    last = NoiseSchedule.from_spec(spec).denoising(50)[-1]
    clean = (z - (1 - last.alpha) ** 0.5 * noise) / last.alpha**0.5
    found = last.alpha_to**0.5 * clean + (1 - last.alpha_to) ** 0.5 * noise
    torch.testing.assert_close(found, oracle.step(noise, last.timestep, z).prev_sample)
