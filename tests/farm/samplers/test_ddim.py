import math

import pytest
import torch
from diffusers import DDIMScheduler

from farm.errors import InvalidRequestError
from farm.model_spec import ModelSpec
from farm.samplers.ddim import Move, NoiseSchedule, ddim_invert, ddim_step, noise_of_velocity

SPEC = ModelSpec(
    name="test",
    image_size=64,
    latent_channels=4,
    latent_size=8,
    tokens=8,
    text_width=8,
    image_tokens=5,
    map_size=4,
    self_replace_size=8,
    prediction_type="epsilon",
)
SCHEDULE = NoiseSchedule.from_spec(SPEC)


def diffusers_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=SPEC.beta_start,
        beta_end=SPEC.beta_end,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def test_levels_are_diffusers_levels():
    # the same float32 operations in the same order, so no tolerance
    assert torch.equal(SCHEDULE.alphas_cumprod, diffusers_scheduler().alphas_cumprod)


@pytest.mark.parametrize("num_steps", [2, 3, 20, 30, 50, 200])
def test_timesteps_are_diffusers_timesteps(num_steps):
    oracle = diffusers_scheduler()
    oracle.set_timesteps(num_steps)
    assert SCHEDULE.timesteps(num_steps) == oracle.timesteps.tolist()


def test_thirty_steps_are_those_of_the_published_program():
    steps = SCHEDULE.timesteps(30)
    assert (steps[0], steps[1], steps[-2], steps[-1]) == (958, 925, 34, 1)


@pytest.mark.parametrize("num_steps", [5, 30])
def test_denoising_matches_diffusers_at_every_step(num_steps):
    oracle = diffusers_scheduler()
    oracle.set_timesteps(num_steps)
    z, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for move in SCHEDULE.denoising(num_steps):
        expected = oracle.step(noise, move.timestep, z).prev_sample
        # one float32 formula in two orders; |z| is about 3 and 1/sqrt(alpha) up to 15
        torch.testing.assert_close(
            ddim_step(z, noise, move.alpha, move.alpha_to), expected, atol=1e-5, rtol=1e-5
        )


def test_the_noise_of_a_velocity_is_the_noise_that_it_was_made_of():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64)
    alphas = torch.tensor([0.05, 0.5, 0.99], dtype=torch.float64)
    root, rest = (part.sqrt().view(3, 1, 1, 1) for part in (alphas, 1 - alphas))
    latents, velocity = root * clean + rest * noise, root * noise - rest * clean
    torch.testing.assert_close(noise_of_velocity(velocity, latents, alphas), noise)


def test_inverting_undoes_denoising_when_the_noise_is_the_same():
    z, noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    moves = SCHEDULE.denoising(12)
    out = z
    for move in moves:
        out = ddim_step(out, noise, move.alpha, move.alpha_to)
    back = list(ddim_invert(lambda latents, timestep: noise, out, SCHEDULE.inverting(12)))
    # 24 float64 steps that amplify rounding by 1/sqrt(alpha) at most
    torch.testing.assert_close(back[-1], z, atol=1e-11, rtol=0)


def test_inverting_tells_the_network_where_it_goes():
    seen: list[int] = []

    def denoiser(latents, timestep):
        seen.append(timestep)
        return torch.zeros_like(latents)

    levels = list(ddim_invert(denoiser, torch.ones(1, 1, 1), SCHEDULE.inverting(4)))
    assert seen == [1, 251, 501, 751]
    # without noise the latents shrink by sqrt of the ratio of levels, from the first of all
    expected = math.sqrt(SCHEDULE.alpha_at(751) / SCHEDULE.alpha_at(0))
    assert levels[-1].item() == pytest.approx(expected, rel=1e-6)


def test_inversion_converges_to_the_ode_at_first_order():
    """In x = z/√α and s = √(1/α - 1), noise = kz is dx/ds = kx/√(1 + s²): x = exp(k asinh s)."""
    k, s_end = 0.5, 3.0
    exact = math.exp(k * math.asinh(s_end)) / math.sqrt(1 + s_end**2)

    def error(steps):
        alphas = 1 / (1 + torch.linspace(0, s_end, steps + 1, dtype=torch.float64) ** 2)
        pairs = zip(alphas[:-1].tolist(), alphas[1:].tolist(), strict=True)
        moves = [Move(n, a, b) for n, (a, b) in enumerate(pairs)]
        clean = torch.ones(1, 1, 1, dtype=torch.float64)
        *_, last = ddim_invert(lambda z, t: k * z, clean, moves)
        return abs(last.item() - exact)

    # an error c h + O(h²): at h = 3/500 the second term is well under one per cent
    assert error(500) / error(1000) == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("num_steps", [0, 1000, 1001])
def test_steps_that_the_schedule_has_not_are_refused(num_steps):
    with pytest.raises(InvalidRequestError, match=f"num_steps is {num_steps}"):
        SCHEDULE.timesteps(num_steps)
