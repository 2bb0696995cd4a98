import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farm.backbones.infinity.schedules import RATIOS, nearest_ratio, table_schedule
from farm.methods.edit_infinity.framing import fit, frame_of, unfit


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def test_a_picture_that_fits_is_itself():
    image = picture(16, 24)
    frame = frame_of(16, 24, (16, 24))
    assert torch.equal(fit(image, frame), image)
    assert torch.equal(unfit(image, picture(16, 24, 1), frame), image)


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(sorted(RATIOS)))
def test_the_part_that_is_seen_lies_inside_is_centred_and_largest(height, width, ratio):
    size = table_schedule(ratio, "1M", cell=1, stride=16).image_size
    seen = frame_of(height, width, size).seen
    assert seen.top >= 0
    assert seen.top + seen.height <= height
    assert abs(2 * seen.top + seen.height - height) <= 1
    assert abs(2 * seen.left + seen.width - width) <= 1
    assert seen.height == height or seen.width == width
    if min(seen.height, seen.width) > 50:  # nothing is squashed
        assert seen.height / seen.width == pytest.approx(size[0] / size[1], rel=0.03)


@given(st.integers(100, 2000), st.integers(100, 2000))
def test_of_photographs_little_is_left_out(height, width):
    ratio = nearest_ratio(height, width)
    if 0.33 < height / width < 3:
        size = table_schedule(ratio, "1M", cell=1, stride=16).image_size
        seen = frame_of(height, width, size).seen
        # neighbouring ratios are at most a third apart, so at most a sixth is cut off
        assert seen.height * seen.width >= 0.8 * height * width


def test_what_is_left_out_and_what_the_mask_keeps_stay_to_the_bit():
    original = picture(40, 30)
    frame = frame_of(40, 30, (16, 16))
    assert (frame.seen.top, frame.seen.height, frame.seen.width) == (5, 30, 30)
    edited = torch.ones(3, 16, 16)
    whole = unfit(edited, original, frame)
    assert torch.equal(whole[:, :5], original[:, :5])
    torch.testing.assert_close(whole[:, 5:35], torch.ones(3, 30, 30))
    mask = torch.zeros(1, 16, 16)
    assert torch.equal(unfit(edited, original, frame, mask), original)
    mask[:, :, :4] = 1
    some = unfit(edited, original, frame, mask)
    assert torch.equal(some[:, :, 15:], original[:, :, 15:])
    assert not torch.equal(some[:, 5:35, :6], original[:, 5:35, :6])


def test_going_there_and_back_keeps_a_smooth_picture():
    rows = torch.linspace(0.2, 0.8, 48)[:, None].expand(48, 32)
    original = torch.stack([rows, rows, rows])
    frame = frame_of(48, 32, (96, 64))
    back = unfit(fit(original, frame), original, frame)
    # bicubic interpolation of a plane errs at the border alone
    torch.testing.assert_close(back[:, 3:-3], original[:, 3:-3], rtol=0, atol=1e-4)
