import itertools

import pytest
from pydantic import ValidationError

from farm.backbones.infinity.schedules import (
    RATIOS,
    SIZES,
    nearest_ratio,
    own_schedule,
    table_schedule,
)
from farm.errors import InvalidRequestError
from tests.tiny_infinity import SPEC


@pytest.mark.parametrize(
    ("size", "tokens", "side"),
    [("0.06M", 521, 256), ("0.25M", 2521, 512), ("0.60M", 6425, 768), ("1M", 10521, 1024)],
)
def test_square_schedules_have_the_published_numbers_of_tokens(size, tokens, side):
    schedule = table_schedule("1.000", size, cell=1, stride=16)
    assert schedule.num_tokens == tokens
    assert schedule.image_size == (side, side)
    assert schedule.rope_grid == (64, 64)


def test_there_is_a_landscape_for_every_portrait():
    assert len(RATIOS) == 15
    portraits = {r: g for r, g in RATIOS.items() if float(r) > 1}
    for ratio, grids in portraits.items():
        landscape = RATIOS[f"{1000 // float(ratio) / 1000:.3f}"]
        assert landscape == tuple((w, h) for h, w in grids)


@pytest.mark.parametrize("ratio", RATIOS)
def test_every_schedule_starts_with_one_token_grows_and_ends_near_its_ratio(ratio):
    grids = RATIOS[ratio]
    assert len(grids) == 13
    assert grids[0] == (1, 1)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(grids))
    height, width = grids[-1]
    assert height / width == pytest.approx(float(ratio), rel=0.01)
    assert 16 * height * 16 * width == pytest.approx(2**20, rel=0.07)


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(512, 512, "1.000"), (600, 400, "1.500"), (480, 640, "0.750"), (900, 100, "3.000")],
)
def test_the_nearest_ratio_is_taken(height, width, ratio):
    assert nearest_ratio(height, width) == ratio


def test_patches_double_the_latent_grid_and_keep_the_picture():
    plain = table_schedule("1.333", "0.25M", cell=1, stride=16)
    patched = table_schedule("1.333", "0.25M", cell=2, stride=8)
    assert patched.image_size == plain.image_size == (576, 432)
    assert patched.latent_size == (72, 54)
    assert patched.num_cells == 4 * plain.num_cells


def test_starts_are_where_scales_begin():
    schedule = table_schedule("2.000", "0.06M", cell=1, stride=16)
    assert schedule.starts[0] == 0
    assert schedule.starts[-1] + schedule.lengths[-1] == schedule.num_tokens
    assert len(schedule.starts) == schedule.num_scales


def test_unknown_schedules_are_refused():
    with pytest.raises(InvalidRequestError, match=r"ratios are 1\.000"):
        table_schedule("1.111", "1M", cell=1, stride=16)
    for grids in ([], [(2, 2)], [(1, 1), (4, 4), (2, 2)]):
        with pytest.raises(InvalidRequestError, match="start with"):
            own_schedule(grids, cell=1, stride=8)


def test_a_spec_has_one_kind_of_schedule():
    fields = SPEC.model_dump()
    with pytest.raises(ValidationError, match="exactly one"):
        type(SPEC)(**fields | {"size": "1M"})
    with pytest.raises(ValidationError, match="never shrink"):
        type(SPEC)(**fields | {"grids": ((1, 1), (3, 3), (2, 2))})
    assert SPEC.schedule_for(30, 90).image_size == (16, 16)
    with pytest.raises(InvalidRequestError, match="alone"):
        SPEC.schedule("1.000/1M")


@pytest.mark.parametrize("size", SIZES)
def test_a_spec_of_the_tables_takes_any_aspect_ratio(size):
    spec = type(SPEC)(**SPEC.model_dump() | {"grids": None, "size": size})
    assert spec.schedule_for(300, 400).name == f"0.750/{size}"
    with pytest.raises(InvalidRequestError, match=size):
        spec.schedule("own")
