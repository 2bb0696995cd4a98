"""The scenes world: what its pictures, words and splits promise."""

import math
import random

import pytest
import torch

from farm.masks import dilate
from farm.metrics.psnr import psnr
from farm.zoo.scenes.captions import caption, varied_caption
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.rendering import render
from farm.zoo.scenes.scenes import concatenate, generator_for, sample_scenes
from farm.zoo.scenes.vocabulary import (
    BACKGROUNDS,
    COLOUR_NAMES,
    COLOURS,
    EDIT_TYPES,
    SHAPES,
    is_held_out,
)


def draw(count=128, seed=0, split="heldout", **options):
    return sample_scenes(count, generator_for(split, seed), split=split, **options)


def test_the_same_seed_gives_the_same_pixels_and_another_does_not():
    first, again, other = (render(draw(16, s)).images for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch():
    scenes = draw(70, 5)
    alone = render(scenes[slice(66, 67)]).images
    # 1e-6: vectorised sines may round the last bit differently at another position
    torch.testing.assert_close(render(scenes).images[66:67], alone, atol=1e-6, rtol=0)


def test_splits_are_disjoint_streams():
    assert not torch.equal(draw(8, 1, "train").texture, draw(8, 1, "heldout").texture)


def test_at_least_a_tenth_of_the_combinations_is_held_out_and_none_is_trained_on():
    combinations = [
        (s, c, b)
        for s in range(len(SHAPES))
        for c in range(len(COLOUR_NAMES))
        for b in range(len(BACKGROUNDS))
    ]
    held = [x for x in combinations if is_held_out(*x)]
    assert len(held) >= len(combinations) / 10
    for axis, size in enumerate((len(SHAPES), len(COLOUR_NAMES), len(BACKGROUNDS))):
        seen = {x[axis] for x in combinations if not is_held_out(*x)}
        assert len(seen) == size
    scenes = draw(4000, 2, "train")
    for slot in range(2):
        rows = scenes.present()[:, slot]
        triples = zip(
            scenes.shape[rows, slot].tolist(),
            scenes.colour[rows, slot].tolist(),
            scenes.background[rows].tolist(),
            strict=True,
        )
        assert not any(is_held_out(*t) for t in triples)
    assert not scenes.held_out().any()
    assert draw(4000, 2).held_out().any()


def test_a_third_of_the_scenes_has_two_objects_that_differ_and_do_not_touch():
    scenes = draw(6000, 1)
    two = scenes.count == 2
    # three standard deviations of a share of 1/3 among 6000
    assert two.float().mean().item() == pytest.approx(1 / 3, abs=3 * math.sqrt(2 / 9 / 6000))
    assert (scenes.shape[two, 0] != scenes.shape[two, 1]).all()
    assert (scenes.colour[two, 0] != scenes.colour[two, 1]).all()
    masks = render(scenes[two][slice(0, 200)]).masks
    assert (masks.amin(1) == 0).all()


def test_masks_cover_the_object_and_nothing_else():
    scenes = draw(64, 9, two_share=0.0)
    without = render(
        type(scenes)(**{**vars(scenes), "count": torch.zeros_like(scenes.count)})
    ).images
    drawn = render(scenes)
    changed = (drawn.images - without).abs().amax(1) > 1e-6
    assert not (changed & (drawn.masks[:, 0] == 0)).any()
    assert (drawn.masks[:, 0].mean((1, 2)) > 0.04).all()


def test_the_middle_of_a_plain_object_has_its_colour():
    scenes = draw(400, 4, two_share=0.0)
    solid = (scenes.pattern[:, 0] == 0) & (scenes.shape[:, 0] != SHAPES.index("ring"))
    images = render(scenes).images
    for i in solid.nonzero()[:40, 0].tolist():
        x, y = scenes.geometry[i, 0, :2].long().tolist()
        expected = torch.tensor(COLOURS[COLOUR_NAMES[int(scenes.colour[i, 0])]])
        # shading from top to bottom changes brightness by up to a tenth
        torch.testing.assert_close(images[i, :, y, x], expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", EDIT_TYPES)
def test_an_edit_changes_its_region_and_nothing_else(kind):
    for edit in sample_edits(12, 7, (kind,)):
        truth = edit_truth(edit)
        outside = (dilate(truth.region[None, None], 1) == 0).float()
        same = psnr(truth.source.images, truth.target.images, outside).item()
        assert math.isnan(same) or same > 90
        inside = psnr(truth.source.images, truth.target.images, truth.region[None, None]).item()
        assert inside < 30


@pytest.mark.parametrize("kind", EDIT_TYPES)
def test_the_words_of_an_edit_say_what_changes(kind):
    for edit in sample_edits(24, 8, (kind,)):
        source, target = edit.source_prompt.split(), edit.target_prompt.split()
        assert source != target
        if kind not in ("add", "remove"):
            assert len(source) == len(target)
        if kind == "remove":
            assert edit.source_word in source
            assert len(source) > len(target)
        else:
            assert edit.target_word in target
            assert edit.target_word not in source


def test_edits_come_from_the_seed_alone_and_types_take_turns():
    first, again = (sample_edits(8, 11, ("colour", "background")) for _ in range(2))
    assert [e.source_prompt for e in first] == [e.source_prompt for e in again]
    assert [e.type for e in first[:4]] == ["colour", "background", "colour", "background"]
    assert [e.source_prompt for e in sample_edits(4, 11, ("colour", "background"))] == [
        e.source_prompt for e in first[:4]
    ]


def test_varied_captions_name_every_object_in_the_order_given():
    scenes = draw(200, 6)
    words = random.Random(0)
    for i in range(200):
        text, order = varied_caption(scenes, i, words)
        nouns = [w for w in text.split() if w in SHAPES]
        assert nouns == [SHAPES[int(scenes.shape[i, slot])] for slot in order]
        assert BACKGROUNDS[int(scenes.background[i])] in text.split()
        assert caption(scenes, i).split()[-1] == BACKGROUNDS[int(scenes.background[i])]


def test_concatenation_keeps_the_order():
    first, second = draw(3, 1), draw(2, 2)
    both = concatenate([first, second])
    assert len(both) == 5
    assert torch.equal(both.texture[3:], second.texture)
