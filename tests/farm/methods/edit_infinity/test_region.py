import pytest
import torch

from farm.backbones.infinity.schedules import own_schedule, table_schedule
from farm.errors import EditFailedError, InvalidImageError
from farm.methods.edit_infinity.attention import map_size
from farm.methods.edit_infinity.config import EditingConfig
from farm.methods.edit_infinity.editing import EditOutput, restored
from farm.methods.edit_infinity.framing import frame_of
from farm.methods.edit_infinity.region import from_attention, from_mask, nothing, whole

LAYOUT = table_schedule("1.000", "1M", cell=1, stride=16)
WIDE = table_schedule("0.666", "0.25M", cell=1, stride=16)


def region_of(mask, layout=LAYOUT, size=None, **options):
    edits = options.pop("edits", "white")
    size = tuple(mask.shape[-2:]) if size is None else size
    frame = frame_of(*size, layout.image_size)
    return from_mask(mask, frame, size, layout, EditingConfig(**options), edits=edits)


def square(side=1024, at=(256, 384)):
    mask = torch.zeros(1, side, side)
    mask[:, at[0] : at[1], at[0] : at[1]] = 1
    return mask


def test_a_mask_marks_its_cells_and_a_ramp_around():
    found = region_of(square())
    assert found.cells.sum() == 64
    assert found.cells[16:24, 16:24].all()
    assert found.weight[20, 14:30].tolist() == [
        *(0.25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        *(0.25, 0.5, 0.75, 1, 1),
    ]


def test_either_colour_may_be_the_edited_one():
    assert torch.equal(region_of(1 - square(), edits="black").weight, region_of(square()).weight)


def test_a_mask_of_any_resolution_and_ratio_is_brought_to_the_cells():
    mask = torch.zeros(1, 300, 500)
    mask[:, :, 250:] = 1
    found = region_of(mask, WIDE)
    assert found.cells.shape == WIDE.latent_size == (26, 39)
    columns = found.cells.all(0)
    assert not columns[:19].any()
    assert columns[20:].all()


def test_a_drawn_mask_goes_by_the_released_blocks_where_reference_asks():
    """800 pixels on a grid of 64: blocks of round(12.5) = 12 that drift from their cells (§5.6)."""
    mask = square(800, (500, 700))
    found = region_of(mask, plotted_mask=True)
    painted = mask[0, : 64 * 12, : 64 * 12].unflatten(0, (64, 12)).unflatten(2, (64, 12))
    assert torch.equal(found.cells, painted.mean(dim=(1, 3)) >= 0.2)
    assert not torch.equal(found.cells, region_of(mask).cells)
    # where the size is a multiple of the grid both are the same
    same = square(512, (100, 300))
    assert torch.equal(region_of(same, plotted_mask=True).weight, region_of(same).weight)


def test_white_begins_above_the_middle():
    grey = torch.full((1, 1024, 1024), 128 / 255)
    with pytest.raises(InvalidImageError, match="nothing in the mask is white"):
        region_of(grey)
    assert region_of(torch.full((1, 1024, 1024), 129 / 255)).cells.all()


@pytest.mark.parametrize(
    ("mask", "size", "message"),
    [
        (square(64, (8, 16)), (65, 64), "64 x 64 pixels, the image 64 x 65"),
        (torch.zeros(1, 64, 64), None, "nothing in the mask is white.*'black'"),
        (torch.zeros(1, 1024, 1024).index_fill(2, torch.tensor([500]), 1.0), None, "no fifth"),
    ],
)
def test_masks_that_mark_nothing_are_refused(mask, size, message):
    with pytest.raises(InvalidImageError, match=message):
        region_of(mask, size=size)


def test_attention_marks_what_exceeds_the_threshold():
    score = torch.zeros(64, 64)
    score[10:20, 30:40] = 1
    score[12, 32] = 3
    loose = from_attention(score, LAYOUT, EditingConfig(threshold=0.2))
    assert torch.equal(loose.cells, score > 0)
    tight = from_attention(score, LAYOUT, EditingConfig(threshold=0.5))
    assert tight.cells.sum() == 1


def test_a_finer_map_marks_every_cell_that_it_touches_by_a_fifth():
    assert map_size(8, 8) == map_size(64, 64) == map_size(16, 16) == (64, 64)
    assert map_size(*WIDE.latent_size) == (52, 78)
    assert map_size(128, 128) == (128, 128), "patches: the map is as fine as the cells"
    small = own_schedule(((1, 1), (8, 8)), cell=1, stride=8)
    score = torch.zeros(64, 64)
    score[8:18, 8:20] = 1  # a whole cell, a quarter of the next two, half of those right
    found = from_attention(score, small, EditingConfig())
    assert torch.equal(found.inside, score > 0)
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:3, 1:3] = True
    expected[2, 2] = False  # an eighth
    assert torch.equal(found.cells, expected)
    assert found.weight[1, 1] == 0
    assert found.weight[4, 4] == 1


def test_a_region_grows_by_cells_unless_it_is_large():
    """Half a cell of a grid of 8 is four of the map's 64 places."""
    small = own_schedule(((1, 1), (8, 8)), cell=1, stride=8)
    score = torch.zeros(64, 64)
    score[24:32, 24:32] = 1  # cell (3, 3)
    found = from_attention(score, small, EditingConfig(grow=0.5))
    assert found.inside.any(1).nonzero()[:, 0].tolist() == list(range(20, 36))
    assert found.cells.nonzero().tolist() == [[2, 3], [3, 2], [3, 3], [3, 4], [4, 3]]
    whole_cell = from_attention(score, small, EditingConfig(grow=1.0))
    assert whole_cell.cells[2:5, 2:5].all()
    large = torch.zeros(64, 64)
    large[:, :40] = 1  # twelve of the sixteen coarse cells
    kept = from_attention(large, small, EditingConfig(grow=1.0))
    assert torch.equal(kept.inside, large > 0)


def test_a_large_region_has_a_threshold_of_its_own():
    """Three levels: above the middle it is large, so the higher threshold counts."""
    small = own_schedule(((1, 1), (8, 8)), cell=1, stride=8)
    score = torch.zeros(64, 64)
    score[:, :48], score[:, :24] = 0.6, 1.0
    config = EditingConfig(large_threshold=0.7)
    assert torch.equal(from_attention(score, small, config).inside, score > 0.7)
    little = torch.zeros(64, 64)
    little[:16, :16], little[0, 0] = 0.6, 1.0
    assert torch.equal(from_attention(little, small, config).inside, little > 0.5)


def test_a_peak_of_a_single_value_is_the_cell_around_it():
    small = own_schedule(((1, 1), (8, 8)), cell=1, stride=8)
    score = torch.zeros(64, 64)
    score[30, 41] = 1
    found = from_attention(score, small, EditingConfig())
    assert found.cells.nonzero().tolist() == [[3, 5]]


def test_attention_that_is_the_same_everywhere_shows_nothing():
    with pytest.raises(EditFailedError, match="same everywhere"):
        from_attention(torch.ones(64, 64), LAYOUT, EditingConfig())


def test_a_plotted_mask_is_distorted():
    score = torch.zeros(64, 64)
    score[50:60, 50:60] = 1
    exact = from_attention(score, LAYOUT, EditingConfig())
    drawn = from_attention(score, LAYOUT, EditingConfig(plotted_mask=True))
    assert torch.equal(exact.cells, score > 0)
    assert not torch.equal(drawn.cells, exact.cells)


def test_kernels_differ():
    released, paper = region_of(square()), region_of(square(), kernel="paper")
    assert torch.equal(released.cells, paper.cells)
    assert not torch.equal(released.weight, paper.weight)


def test_everything_and_nothing():
    assert whole(WIDE).weight.eq(0).all()
    assert nothing(WIDE).weight.eq(1).all()
    assert not nothing(WIDE).cells.any()


def test_untouched_pixels_are_the_originals_own():
    original = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 64, 64)
    mask[:, 24:40, 24:40] = 1
    output = EditOutput(torch.ones(3, 64, 64), mask, {}, torch.zeros(3, 64, 64))
    frame = frame_of(64, 64, (64, 64))
    pasted = restored(output, original, frame, EditingConfig(paste_back=True), stride=8)
    changed = (pasted != original).any(0)
    assert not changed[:16].any()
    assert not changed[:, 48:].any()
    assert pasted[:, 26:38, 26:38].min() > 0.99
    assert pasted[:, 24:40, 24:40].min() > 0.95  # a disc is short of the square's corners
    plain = restored(output, original, frame, EditingConfig(), stride=8)
    assert torch.equal(plain, output.image)


def test_pixels_in_the_region_that_did_not_change_are_the_originals_own():
    original = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    source = torch.full((3, 64, 64), 0.5)
    image = source + 0.1  # as the autoencoder's bits may waver
    image[:, 20:40, 20:40] = 1
    output = EditOutput(image, torch.ones(1, 64, 64), {}, source)
    frame = frame_of(64, 64, (64, 64))
    config = EditingConfig(paste_back=True, paste_threshold=0.12)
    pasted = restored(output, original, frame, config, stride=8)
    own = (pasted == original).all(0)
    reach = 2 + 2  # half a window of 5, then the soft border on both its sides
    assert own[: 20 - reach].all()
    assert own[:, 40 + reach :].all()
    torch.testing.assert_close(pasted[:, 20:40, 20:40], image[:, 20:40, 20:40])
    everything = EditingConfig(paste_back=True, paste_threshold=0.05)
    torch.testing.assert_close(restored(output, original, frame, everything, stride=8), image)
