"""Holes with remains of another thing around them."""

import torch

from farm.masks import boxes_to_masks
from farm.zoo.recipes.diffusion import load_autoencoder
from farm.zoo.recipes.remains import another_in_a_hole, fits, remains_pool
from farm.zoo.scenes.boxes import bounding_boxes
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import generator_for, sample_scenes
from farm.zoo.weights import SCENES_FOLDER

KINDS = ("shape", "colour", "pattern")


def drawn(count, seed=0):
    old = sample_scenes(count, generator_for("train", seed, "t"), split="train", two_share=0.5)
    new, holes, slot = another_in_a_hole(old, torch.Generator().manual_seed(seed))
    return old, new, holes, slot


def of_slot(scenes, name, slot):
    return getattr(scenes, name)[torch.arange(len(slot)), slot]


def test_one_thing_is_another_and_all_else_stays():
    old, new, _, slot = drawn(600)
    assert not new.held_out().any()
    assert (slot < old.count).all()
    assert set(slot[old.count == 2].tolist()) == {0, 1}
    differs = torch.stack([of_slot(old, n, slot) != of_slot(new, n, slot) for n in KINDS])
    assert (differs.float().mean(1) > 0.3).all()
    assert 0.1 < (differs.sum(0) == 0).float().mean() < 0.4  # the same is asked for again
    for name in (*KINDS, "geometry"):
        assert torch.equal(of_slot(old, name, 1 - slot), of_slot(new, name, 1 - slot))
    for name in ("background", "texture", "count", "size"):
        assert torch.equal(getattr(old, name), getattr(new, name))
    two = new.count == 2
    assert (new.shape[two, 0] != new.shape[two, 1]).all()
    assert (new.colour[two, 0] != new.colour[two, 1]).all()


def test_new_things_fill_their_holes_and_old_ones_reach_out_of_many():
    old, new, holes, slot = drawn(600)
    before, after = render(old).masks, render(new).masks
    use = fits(after, holes, slot)
    assert use.float().mean() > 0.6
    rows = torch.arange(600)
    hole = boxes_to_masks(holes.float(), 64, 64)[:, 0]
    new_thing, old_thing = (m[rows, slot][use] for m in (after, before))
    outside = 1 - hole[use]
    assert (new_thing * outside).sum((1, 2)).max() < 0.03 * new_thing.sum((1, 2)).max()
    sides = (holes[use, 2:] - holes[use, :2]).amin(1)
    bounds = bounding_boxes(new_thing)
    filled = (bounds[:, 2:] - bounds[:, :2]).amax(1) / sides
    assert 0.5 < filled.mean() < 0.95
    remains = (old_thing * outside).sum((1, 2)) / old_thing.sum((1, 2))
    assert (remains > 0.1).float().mean() > 0.3
    assert (remains < 0.02).float().mean() > 0.1


def test_what_does_not_fit_is_told():
    masks = torch.zeros(3, 2, 64, 64)
    masks[:, 1, 20:40, 20:40] = 1
    masks[1, 0, 39:45, 20:40] = 1  # another thing is in the way
    holes = torch.tensor([[20, 20, 40, 40], [20, 20, 40, 40], [20, 20, 40, 39]])
    assert fits(masks, holes, torch.tensor([1, 1, 1])).tolist() == [True, False, False]
    everywhere = torch.tensor([[0, 0, 64, 64]])
    assert fits(masks[:1], everywhere, torch.tensor([1])).tolist() == [True]


def test_the_pool_shows_the_new_thing_in_the_hole_and_the_old_one_around(tmp_path):
    pool = remains_pool(SCENES_FOLDER / "vae", 12, 0, tmp_path, two_share=0.5)
    assert len(pool.scenes) == 12
    assert pool.holes.shape == (12, 1, 4)
    assert pool.condition(torch.tensor([3, 1]), torch.tensor([0, 0])).shape == (2, 5, 16, 16)
    generator = generator_for("train", 0, "remains")
    old = sample_scenes(256, generator, split="train", two_share=0.5)
    new, holes, slot = another_in_a_hole(old, generator)
    after = render(new)
    use = fits(after.masks, holes, slot).nonzero()[:12, 0]
    assert torch.equal(pool.holes[:, 0].long(), holes[use])
    assert torch.equal(pool.scenes.shape, new.shape[use])
    hole = boxes_to_masks(holes[use].float(), 64, 64)
    picture = after.images[use] * hole + render(old[use]).images * (1 - hole)
    autoencoder = load_autoencoder(SCENES_FOLDER)
    with torch.no_grad():
        latents = autoencoder.encode(picture)
        left = autoencoder.encode(picture * (1 - hole) + 0.5 * hole)
    # the pool was computed with three digits
    torch.testing.assert_close(pool.latents.float(), latents, atol=0.15, rtol=0.02)
    torch.testing.assert_close(pool.left[:, 0].float(), left, atol=0.15, rtol=0.02)
    assert (latents - left).abs().mean() > 0.1
    again = remains_pool(SCENES_FOLDER / "vae", 12, 0, tmp_path, two_share=0.5)
    assert torch.equal(again.latents, pool.latents)
