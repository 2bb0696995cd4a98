import pytest
import torch
from diffusers import DDIMScheduler

from farm.images import fit_to_model
from farm.masks import Box
from farm.methods.learnable_regions.config import RenderConfig
from farm.methods.learnable_regions.rendering import Easel, Region, sampling_moves
from farm.samplers.ddim import NoiseSchedule
from tests.farm.methods.learnable_regions.runs import metered_client
from tests.stages import finish
from tests.tiny import TOKENS, WIDTH, tiny_spec
from tests.tiny_regions import picture

REGIONS = [
    Region(0, 0, Box(4, 4, 12, 12)),
    Region(0, 1, Box(2, 2, 14, 14)),
    Region(1, 0, Box(0, 0, 6, 6)),
]


def easel(client, image=None, seed=0, **fields):
    image = picture() if image is None else image
    square, placement = fit_to_model(image, 16, mode="pad")
    generator = torch.Generator().manual_seed(1)
    embeds, uncond = torch.randn(2, TOKENS, WIDTH, generator=generator)
    config = RenderConfig.model_validate({"guidance_scale": 3.0, "context": 1.5} | fields)
    return Easel(image, square, placement, client, embeds, uncond, config, seed=seed)


def drawn(easel, regions=REGIONS, steps=3):
    numbers, found = finish(easel.draw(regions, steps))
    assert numbers == list(range(1, steps + 1))
    return found


@pytest.mark.parametrize("num_steps", [1, 4, 20, 50])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_moves_are_diffusers(num_steps, spacing):
    oracle = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing=spacing,
    )
    oracle.set_timesteps(num_steps)
    schedule = NoiseSchedule.from_spec(tiny_spec())
    moves = sampling_moves(schedule, num_steps, spacing)
    assert [move.timestep for move in moves] == oracle.timesteps.tolist()
    sample, noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for move in moves:
        expected = oracle.step(noise, move.timestep, sample).prev_sample
        clean = (sample - (1 - move.alpha) ** 0.5 * noise) / move.alpha**0.5
        found = move.alpha_to**0.5 * clean + (1 - move.alpha_to) ** 0.5 * noise
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_few_steps_begin_where_pure_noise_is():
    schedule = NoiseSchedule.from_spec(tiny_spec())
    assert sampling_moves(schedule, 4, "trailing")[0].timestep == 999
    assert sampling_moves(schedule, 4, "leading")[0].timestep == 751


def test_side_by_side_is_one_by_one():
    """Candidates share batches, and none knows of another."""
    client, _ = metered_client()
    together = drawn(easel(client))
    for region, drawing in zip(REGIONS, together, strict=True):
        (alone,) = drawn(easel(client), [region])
        assert torch.equal(alone.drawn, drawing.drawn)
        assert drawing.region == region


def test_noise_is_common_to_the_sizes_of_an_anchor_and_to_all_numbers_of_steps():
    client, _ = metered_client()
    one = easel(client)
    assert torch.equal(one.noise(REGIONS[0]), one.noise(REGIONS[1]))
    assert not torch.equal(one.noise(REGIONS[0]), one.noise(REGIONS[2]))
    assert not torch.equal(one.noise(REGIONS[0]), easel(client, seed=1).noise(REGIONS[0]))


def test_a_region_is_prepared_once_however_often_it_is_drawn():
    client, meter = metered_client()
    one = easel(client)
    drawn(one, steps=2)
    drawn(one, REGIONS[:2], steps=3)
    assert meter.work == {"vae_encode": 3, "unet_forward": 2 * (3 * 2 + 2 * 3), "vae_decode": 5}


def test_without_guidance_it_costs_half():
    client, meter = metered_client()
    drawn(easel(client, guidance_scale=1.0), steps=2)
    assert meter.work["unet_forward"] == 3 * 2


def test_finished_pictures_keep_everything_outside_their_region():
    client, _ = metered_client()
    image = picture(40, 56)
    one = easel(client, image)
    region = Region(0, 0, Box(20, 10, 40, 30))
    (drawing,) = drawn(one, [region])
    result, mask = one.finished(drawing)
    assert result.shape == image.shape
    outside = torch.ones(40, 56, dtype=torch.bool)
    outside[10:30, 20:40] = False
    assert torch.equal(result[:, outside], image[:, outside])
    assert not torch.equal(result[:, ~outside], image[:, ~outside])
    assert (mask[:, outside] == 0).all()


def test_as_released_the_whole_picture_goes_through_the_autoencoder():
    client, _ = metered_client()
    one = easel(client, paste=False)
    (drawing,) = drawn(one, REGIONS[:1])
    result, mask = one.finished(drawing)
    assert torch.equal(result, drawing.drawn)
    assert (mask == 1).all()
