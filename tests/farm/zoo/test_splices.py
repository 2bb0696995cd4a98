"""Histories of edits that the zoo's Infinity is trained on."""

import torch
import torch.nn.functional as F

from farm.backbones.infinity.networks import VAE
from farm.backbones.infinity.quantiser import codes_of, quantise, resize, shrink
from farm.backbones.infinity.schedules import own_schedule
from farm.masks import dilate
from farm.zoo.recipes.splices import draw_weights, old_scenes, one_thing_else, spliced
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.weights import SCENES_FOLDER

SCHEDULE = own_schedule(((1, 1), (2, 2), (4, 4)), cell=1, stride=8)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes_of(count, seed=0):
    return sample_scenes(count, generator_for("train", seed, "t"), split="train", two_share=0.5)


def features(seed, count=3):
    return torch.randn(count, 8, 4, 4, generator=generator(seed))


def flips(rate, count=3):
    drawn = generator(9)
    return [torch.rand(count, 8, *s, generator=drawn) < rate for s in SCHEDULE.latent_grids]


def test_one_thing_of_each_scene_is_another():
    new = scenes_of(400)
    old = one_thing_else(new, generator())
    here = new.present()
    changes = torch.stack(
        [
            old.background != new.background,
            *(
                ((getattr(old, name) != getattr(new, name)) & here).sum(1)
                for name in ("colour", "shape", "pattern")
            ),
        ]
    ).int()
    total = changes.sum(0)
    assert set(total.tolist()) == {0, 1}
    assert (total == 0).float().mean() < 0.2  # where it would be a combination held out
    assert (changes.sum(1) > 40).all()
    assert not old.held_out().any()
    for name in ("count", "size", "geometry", "texture"):
        assert torch.equal(getattr(old, name), getattr(new, name))


def test_a_weight_of_nothing_is_plain_and_of_everything_is_the_old_picture():
    new, old = features(1), features(2)
    noise = flips(0.2)
    plain = spliced(new, old, torch.zeros(3, 1, 4, 4), SCHEDULE, noise)
    wanted = quantise(new, SCHEDULE, noise)
    assert all(torch.equal(a, b) for a, b in zip(plain.bits, wanted.bits, strict=True))
    torch.testing.assert_close(plain.codes, wanted.codes)
    kept = spliced(new, old, torch.ones(3, 1, 4, 4), SCHEDULE, noise)
    torch.testing.assert_close(kept.codes, quantise(old, SCHEDULE).codes)


def test_bits_are_those_that_lead_to_the_new_picture_from_where_the_history_stands():
    new, old = features(1), features(2)
    weight = torch.zeros(3, 1, 4, 4)
    weight[..., :2] = 1
    found = spliced(new, old, weight, SCHEDULE, flips(0))
    source = quantise(old, SCHEDULE).bits
    total = torch.zeros_like(new)
    for scale, size in enumerate(SCHEDULE.latent_grids):
        assert torch.equal(found.bits[scale], shrink(new - total, size) > 0)
        old_codes, new_codes = (
            resize(codes_of(bits), SCHEDULE.latent_size)
            for bits in (source[scale], found.bits[scale])
        )
        total = total + weight * old_codes + (1 - weight) * new_codes
        torch.testing.assert_close(found.history[scale], total)
    torch.testing.assert_close(found.codes[..., :2], quantise(old, SCHEDULE).codes[..., :2])


def test_regions_hold_all_that_differs(tmp_path):
    new = scenes_of(24)
    found = old_scenes(SCENES_FOLDER / VAE, new, 0, tmp_path, "t")
    old = one_thing_else(new, generator_for("train", 0, "before"))
    difference = (render(old).images - render(new).images).abs().amax(1)
    differs = difference > 1e-6  # what is composed over another background is rounded otherwise
    regions = F.interpolate(found.regions.float()[:, None], size=(64, 64))[:, 0] > 0
    # outlines are drawn a little beyond the mask
    assert not (differs & (dilate(regions.float(), 4) == 0)).any()
    assert found.features.shape == (24, 32, 8, 8)


def test_regions_become_cells_with_room_around():
    size = (8, 8)
    regions = torch.zeros(200, 16, 16)
    regions[:, 8, 8] = 1
    weights = draw_weights(regions, size, generator())
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert (weights[:, 0, 4, 4] == 0).all()
    assert len({int((w == 0).sum()) for w in weights}) > 1
    assert draw_weights(torch.zeros(2, 16, 16), size, generator()).eq(1).all()
    assert draw_weights(torch.ones(2, 16, 16), size, generator()).eq(0).all()
