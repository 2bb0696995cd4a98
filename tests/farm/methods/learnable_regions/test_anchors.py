import math

import pytest
import torch

from farm.errors import InvalidRequestError
from farm.images import fit_to_model
from farm.methods.learnable_regions.anchors import (
    cumulative_mass,
    mean_attention,
    pick_anchors,
    released_anchors,
    saliency_map,
    seen_cells,
)


def blob(row, column, grid=16, width=2.0, height=1.0):
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    return height * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * width**2))


def random_map(rows=8, columns=8, seed=0):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_the_first_anchor_is_where_the_attention_is():
    """Acceptance 2 of the spec: top right stays top right, nothing is mirrored."""
    anchors = pick_anchors(blob(2, 13), 1, 3.0)
    assert anchors.tolist() == [[2, 13]]


def test_anchors_keep_their_distance_and_fall_in_saliency():
    saliency = random_map(16, 16)
    anchors = pick_anchors(saliency, 9, 3.0).tolist()
    values = [saliency[r, c].item() for r, c in anchors]
    assert values == sorted(values, reverse=True)
    for n, place in enumerate(anchors):
        assert all(math.dist(place, other) >= 3 for other in anchors[:n])


def test_greedy_suppression_by_hand():
    """Every cell that is more salient than a chosen one is chosen or too near a better chosen."""
    saliency = random_map()
    anchors = [tuple(a) for a in pick_anchors(saliency, 5, 2.5).tolist()]
    last = saliency[anchors[-1]]
    for r in range(8):
        for c in range(8):
            if saliency[r, c] > last and (r, c) not in anchors:
                better = [a for a in anchors if saliency[a] > saliency[r, c]]
                assert any(math.dist((r, c), a) < 2.5 for a in better)


def test_two_objects_both_get_an_anchor():
    both = torch.maximum(blob(3, 3), blob(12, 11, height=0.6))
    top_two = both.flatten().topk(2).indices
    assert {n.item() // 16 for n in top_two} <= {2, 3, 4}  # without suppression: one object
    assert pick_anchors(both, 2, 5.0).tolist()[0] == [3, 3]
    assert math.dist(pick_anchors(both, 2, 9.0).tolist()[1], (12, 11)) < 1.5


def test_where_there_is_no_room_the_distance_shrinks_and_no_cell_comes_twice():
    anchors = pick_anchors(random_map(4, 4), 16, 3.0)
    assert len({tuple(a) for a in anchors.tolist()}) == 16


def test_forbidden_cells_are_no_anchors():
    allowed = torch.zeros(8, 8, dtype=torch.bool)
    allowed[2:4] = True
    anchors = pick_anchors(random_map(), 16, 1.0, allowed)
    assert set(anchors[:, 0].tolist()) == {2, 3}
    with pytest.raises(InvalidRequestError, match=r"point_number is 17.*16 cells.*lower"):
        pick_anchors(random_map(), 17, 1.0, allowed)


def test_equal_cells_are_taken_in_reading_order():
    assert pick_anchors(torch.ones(3, 3), 3, 0.0).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_attention_is_the_mean_of_its_heads():
    heads = torch.stack([random_map(seed=n) for n in range(3)])
    torch.testing.assert_close(mean_attention(heads), (heads[0] + heads[1] + heads[2]) / 3)


def test_saliency_without_words_and_smoothing_is_the_stretched_attention():
    attention = 0.01 + 0.02 * random_map()
    found = saliency_map(attention, None, 0.0, 0.0)
    assert (found.min(), found.max()) == (0, 1)
    assert torch.equal(found.flatten().argsort(), attention.flatten().argsort())


def test_words_draw_the_saliency_to_them():
    attention = blob(3, 3)
    relevance = blob(6, 6, grid=8, width=1.0)  # at (13, 13) of 16 cells
    grounded = saliency_map(attention, relevance, 1.0, 0.0)
    assert math.dist(pick_anchors(grounded, 1, 1.0)[0].tolist(), (12.5, 12.5)) < 1.5
    half = saliency_map(attention, relevance, 0.5, 0.0)
    torch.testing.assert_close(half[3, 3], half[12, 12], atol=0.15, rtol=0)
    assert torch.equal(saliency_map(attention, relevance, 0.0, 0.0), attention_only(attention))


def attention_only(attention):
    return saliency_map(attention, None, 0.0, 0.0)


def test_smoothing_prefers_an_object_to_a_speck():
    attention = blob(10, 10, width=2.0, height=0.9)
    attention[2, 2] = 1.0
    assert pick_anchors(saliency_map(attention, None, 0.0, 0.0), 1, 1.0).tolist() == [[2, 2]]
    assert pick_anchors(saliency_map(attention, None, 0.0, 1.0), 1, 1.0).tolist() == [[10, 10]]


def test_smoothing_leaves_a_constant_alone():
    constant = torch.full((8, 8), 0.3)
    assert (saliency_map(constant, None, 0.0, 2.0) == 0).all()  # nothing stands out


@pytest.mark.parametrize(("height", "width"), [(16, 16), (10, 40), (40, 10)])
def test_padding_has_no_anchors(height, width):
    image = torch.zeros(3, height, width)
    _, placement = fit_to_model(image, 16, mode="pad")
    cells = seen_cells(placement, 8)
    square = placement.square
    inside = torch.zeros(16, 16)
    inside[square.top : square.top + square.height, square.left : square.left + square.width] = 1
    middles = inside[1::2, 1::2]  # the pixel whose corner is the middle of each cell
    assert torch.equal(cells, middles.bool())
    assert cells.any()


def test_a_picture_thinner_than_a_cell_has_anchors_too():
    _, placement = fit_to_model(torch.zeros(3, 1, 200), 16, mode="pad")
    cells = seen_cells(placement, 4)
    assert cells.sum() == 4
    assert len(pick_anchors(random_map(4, 4), 4, 1.0, cells)) == 4


# As released


def test_the_border_rule():
    """W = 15 of 32 leaves the four central cells, whatever the picture (spec §1.3)."""
    found = released_anchors(random_map(32, 32), 9, 15)
    assert {tuple(a) for a in found[:4].tolist()} == {(15, 15), (15, 16), (16, 15), (16, 16)}
    saliency = random_map(32, 32)
    best = saliency.flatten().topk(5).indices
    assert [r * 32 + c for r, c in found[4:].tolist()] == best.tolist()


def test_without_valid_cells_the_top_cells_are_taken():
    saliency = random_map(32, 32)
    best = saliency.flatten().topk(3).indices
    assert [r * 32 + c for r, c in released_anchors(saliency, 3, 16).tolist()] == best.tolist()


def test_cumulative_mass_by_hand():
    attention = torch.tensor([[0.4, 0.1], [0.2, 0.3]])
    expected = torch.tensor([[1.0, 0.1], [0.3, 0.6]])
    torch.testing.assert_close(cumulative_mass(attention), expected)
    torch.testing.assert_close(cumulative_mass(7 * attention), expected)
