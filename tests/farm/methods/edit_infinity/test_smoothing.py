import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.methods.edit_infinity.smoothing import (
    above_threshold,
    cells_of,
    distances,
    is_large,
    plotted,
    ramp_unit,
    released_cells_of,
    weights,
)


def one_cell(size=12, at=(5, 5)):
    region = torch.zeros(size, size, dtype=torch.bool)
    region[at] = True
    return region


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**16))
def test_distances_are_the_least_sums_of_steps(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    region = torch.rand(height, width, generator=generator) < 0.2
    places = region.nonzero().tolist()
    found = distances(region)
    for row in range(height):
        for column in range(width):
            steps = [abs(row - r) + abs(column - c) for r, c in places]
            assert found[row, column] == min(steps, default=math.inf)


def test_released_weights_rise_by_quarters():
    line = weights(one_cell(), "released", large=False)[5, 5:]
    assert line.tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_the_papers_weights_rise_by_thirds():
    line = weights(one_cell(), "paper", large=False)[5, 5:]
    assert line.tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1, 1])
    assert torch.equal(weights(one_cell(), "paper", large=True)[5, 5:], line)


def test_a_large_region_has_a_hard_edge_as_released():
    line = weights(one_cell(), "released", large=True)[5, 5:]
    assert line.tolist() == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kernel", ["released", "paper"])
def test_without_a_region_everything_stays(kernel):
    empty = torch.zeros(4, 6, dtype=torch.bool)
    assert torch.equal(weights(empty, kernel, large=False), torch.ones(4, 6))


def test_the_ramp_scales_with_the_grid():
    sizes = {(64, 64): 1, (84, 48): 1, (111, 37): 1, (32, 32): 2, (16, 16): 4, (8, 8): 8}
    assert {size: ramp_unit(*size) for size in sizes} == sizes
    assert ramp_unit(128, 128) == 0.5
    coarse = weights(one_cell(), "released", large=False, unit=4.0)[5, 5:]
    assert coarse.tolist() == [0, 0.75, 1, 1, 1, 1, 1], "one cell is four of the fine grid"


def test_a_map_becomes_a_mask_between_its_extremes():
    score = torch.tensor([[0.0, 0.2], [0.5, 1.0]])
    assert above_threshold(score, 0.5).tolist() == [[False, False], [False, True]]
    assert above_threshold(score + 7, 0.1).tolist() == [[False, True], [True, True]]
    assert not above_threshold(torch.ones(3, 3), 0.5).any()


def test_a_fifth_of_a_cell_is_enough():
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[:2, :10] = True  # 20 of a cell's 100 pixels
    mask[10:11, 10:] = True  # 10 of them
    assert cells_of(mask, 2, 2).tolist() == [[True, False], [False, False]]
    assert torch.equal(released_cells_of(mask, 2, 2), cells_of(mask, 2, 2))


def test_blocks_of_whole_pixels_drift_where_the_size_is_no_multiple():
    mask = torch.zeros(616, 616, dtype=torch.bool)
    mask[-20:] = True
    ours, theirs = cells_of(mask, 64, 64), released_cells_of(mask, 64, 64)
    assert ours[-2:].all()
    assert not theirs[-2:].any(), "blocks of 10 pixels: the last are beyond the picture"
    assert theirs[60:62, :62].all()


def test_six_coarse_cells_are_large():
    region = torch.zeros(16, 16, dtype=torch.bool)
    region[:4] = True
    assert not is_large(region)
    region[4:8, :8] = True
    assert is_large(region)


def test_the_plotted_picture_is_the_region_enlarged():
    region = torch.rand(64, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    picture = plotted(region)
    centres = ((torch.arange(64) + 0.5) * 616 / 64).long()
    assert torch.equal(picture[centres][:, centres], region)
    share = picture.float().mean().item()
    assert share == pytest.approx(region.float().mean().item(), abs=0.02)  # cells of 9 or 10 pixels
