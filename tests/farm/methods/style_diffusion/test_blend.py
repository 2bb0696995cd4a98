import torch

from farm.methods.style_diffusion.blend import (
    blend,
    blend_active,
    holds,
    region,
    shield,
    widen,
)


def test_a_single_bright_place_becomes_its_neighbourhood():
    scores = torch.zeros(1, 4, 4)
    scores[0, 1, 1] = 5.0
    mask = region(widen(scores), 0.3, 8)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:6, :6] = True  # 3 × 3 places, each 2 × 2 latents
    assert torch.equal(mask, expected)


def test_widening_is_the_maximum_of_each_neighbourhood():
    scores = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(1))
    for row, wide in zip(scores, widen(scores), strict=True):
        for y in range(5):
            for x in range(5):
                near = row[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                assert wide[y, x] == near.max()


def test_region_unites_rows_each_on_its_own_scale():
    scores = torch.tensor([[[10.0, 2.9], [3.1, 0.0]], [[0.0, 0.02], [0.0, 0.01]]])
    # row one: above 3; row two: above 0.006
    expected = torch.tensor([[True, True], [True, True]])
    assert torch.equal(region(scores, 0.3, 2), expected)
    assert torch.equal(region(scores[:1], 0.3, 2), torch.tensor([[True, False], [True, False]]))


def test_a_prompt_without_blend_words_adds_nothing():
    scores = torch.zeros(2, 2, 2)
    assert not region(scores, 0.3, 2).any()
    scores[1, 0, 0] = 1
    assert region(scores, 0.3, 2).sum() == 1


def test_outside_the_mask_the_target_is_the_source():
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:3, 1:3] = True
    blended = blend(latents, mask)
    assert torch.equal(blended[0], latents[0])
    assert torch.equal(blended[1][:, ~mask], latents[0][:, ~mask])
    # source + (target - source) rounds once
    torch.testing.assert_close(blended[1][:, mask], latents[1][:, mask])


def test_blending_begins_with_the_seventh_of_thirty_steps():
    active = [blend_active(n, 30, 0.2) for n in range(30)]
    assert active.index(True) == 6
    assert all(active[6:])
    assert not any(blend_active(n, 30, 1.0) for n in range(30))


CHANGE = torch.tensor([[[1.0, 0.9, 0.8], [0.5, 0.5, 0.4], [0.35, 0.1, 0.1]]])


def test_a_word_that_stays_elsewhere_shields_where_it_outweighs_the_change():
    stays = torch.tensor([[[[0.0, 0.0, 0.0], [2.1, 1.9, 0.0], [4.0, 1.0, 4.0]]]])
    # relative to its 4: .525 is above the change's .5, .475 is not, .25 is under the threshold
    expected = torch.tensor([[[0, 0, 0], [1, 0, 0], [1, 0, 1]]]).bool()
    assert torch.equal(shield(CHANGE, stays, 0.3), expected[None])
    mask = region(CHANGE, 0.3, 3, expected)
    assert torch.equal(mask, torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0]]).bool())


def test_a_word_of_the_same_object_shields_nothing():
    same = CHANGE[None] * 3 + 0.01
    assert not shield(CHANGE, same, 0.0).any()


def test_a_row_without_any_attention_shields_nothing():
    assert not shield(torch.zeros(2, 2, 2), torch.zeros(1, 2, 2, 2), 0.0).any()


def test_a_region_grows_on_all_sides_but_not_over_what_is_held():
    scores = torch.zeros(1, 5, 5)
    scores[0, 2, 2] = 1.0
    held = torch.zeros(1, 5, 5, dtype=torch.bool)
    held[0, 1, :] = True
    expected = torch.zeros(5, 5, dtype=torch.bool)
    expected[2:4, 1:4] = True
    assert torch.equal(region(scores, 0.3, 5, grow=1, held=held), expected)


def test_what_covers_half_of_the_picture_does_not_grow():
    scores = torch.zeros(1, 4, 4)
    scores[0, :, :2] = 1.0
    assert torch.equal(region(scores, 0.3, 4, grow=1), scores[0] > 0)
    scores[0, 0, 0] = 0.0  # seven of sixteen
    assert region(scores, 0.3, 4, grow=1).sum() == 12


def test_a_word_holds_its_place_if_it_is_looked_at_in_less_than_half():
    thing, ground = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    thing[0, 0] = 3.0
    ground[0, 0] = 0.2
    assert holds(torch.stack([thing, ground]), 0.3).flatten().tolist() == [True, False]
    assert holds(ground[None] * 0, 0.3).all()  # looked at nowhere: there is nothing to hold
