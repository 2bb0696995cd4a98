import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from farm.errors import InvalidImageError, InvalidRequestError
from farm.masks import (
    binarise_midpoint,
    boxes_to_masks,
    composite,
    decode_mask,
    differing,
    dilate,
    feather,
    iou,
    pointing,
)

SEEDS = st.integers(0, 2**31)


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def masks(draw, *, soft=None):
    """Batches of masks, sparse to full, binary or soft."""
    shape = (draw(st.integers(1, 3)), 1, draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    values, chance = rand(*shape, seed=draw(SEEDS)), draw(st.sampled_from([0.02, 0.2, 0.9]))
    binary = (values < chance).float()
    if draw(st.booleans()) if soft is None else soft:
        return binary * rand(*shape, seed=draw(SEEDS))
    return binary


def disc(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x**2 + y**2 <= radius**2


class TestBinariseMidpoint:
    def test_each_map_has_its_own_midpoint(self):
        score = torch.tensor([[[0.0, 4.0], [1.0, 3.0]], [[10.0, 11.0], [10.4, 10.6]]])
        expected = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        assert torch.equal(binarise_midpoint(score), expected)

    @pytest.mark.parametrize("value", [0.0, 0.3, -7.0, 1e30])
    def test_a_constant_map_gives_an_empty_mask(self, value):
        assert binarise_midpoint(torch.full((2, 5, 5), value)).sum() == 0

    def test_the_smallest_difference_counts(self):
        score = torch.ones(1, 4, 4)
        score[0, 1, 2] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
        assert torch.equal(binarise_midpoint(score).nonzero(), torch.tensor([[0, 1, 2]]))

    @given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
    @settings(deadline=None)
    def test_scale_and_offset_do_not_matter(self, seed, scale, offset):
        score = rand(1, 9, 9, seed=seed).double()
        assert torch.equal(binarise_midpoint(score * scale + offset), binarise_midpoint(score))


class TestDilate:
    @given(masks(), st.integers(0, 9))
    @settings(deadline=None)
    def test_is_scipys_grey_dilation_by_a_disc(self, mask, radius):
        expected = [
            ndimage.grey_dilation(m.numpy(), footprint=disc(radius), mode="constant")
            for m in mask[:, 0]
        ]
        assert torch.equal(dilate(mask, radius)[:, 0], torch.tensor(np.stack(expected)))

    def test_is_the_set_of_pixels_within_the_distance(self):
        mask = (rand(1, 40, 50) < 0.01).float()
        distance = ndimage.distance_transform_edt(mask[0].numpy() == 0)
        assert torch.equal(dilate(mask, 6)[0].bool(), torch.tensor(distance <= 6))

    @given(masks(), st.integers(0, 5), st.integers(0, 5))
    @settings(deadline=None)
    def test_contains_the_mask_and_grows(self, mask, radius, more):
        smaller = dilate(mask, radius)
        assert (smaller >= mask).all()
        assert (dilate(mask, radius + more) >= smaller).all()

    @given(masks())
    @settings(deadline=None)
    def test_by_nothing_is_a_copy(self, mask):
        result = dilate(mask, 0)
        assert torch.equal(result, mask)
        assert result.data_ptr() != mask.data_ptr()

    @given(masks(soft=False))
    @settings(deadline=None)
    def test_far_enough_fills_what_is_not_empty(self, mask):
        filled = dilate(mask, 40).flatten(1)
        assert torch.equal(filled.amin(1), mask.flatten(1).amax(1))

    @pytest.mark.parametrize("function", [dilate, feather])
    def test_negative_radius_is_refused(self, function):
        with pytest.raises(InvalidRequestError, match="radius -1"):
            function(torch.zeros(1, 4, 4), -1)


class TestFeather:
    @given(masks(), st.integers(1, 8))
    @settings(deadline=None)
    def test_is_scipys_gaussian(self, mask, radius):
        expected = [
            ndimage.gaussian_filter(
                m.double().numpy(), sigma=radius / 2, radius=radius, mode="nearest"
            )
            for m in mask[:, 0]
        ]
        # Two passes of at most 17 float32 products, against float64.
        torch.testing.assert_close(
            feather(mask, radius)[:, 0].double(),
            torch.tensor(np.stack(expected)),
            rtol=0,
            atol=1e-6,
        )

    @given(masks(), st.integers(0, 8))
    @settings(deadline=None)
    def test_stays_in_range(self, mask, radius):
        soft = feather(mask, radius)
        assert 0 <= soft.min() <= soft.max() <= 1

    def test_changes_only_near_the_border_and_passes_through_the_middle(self):
        mask = torch.zeros(1, 30, 40)
        mask[:, :, 20:] = 1
        soft = feather(mask, 5)
        assert soft[:, :, :15].max() == 0
        torch.testing.assert_close(soft[:, :, 25:], torch.ones(1, 30, 15))
        assert (soft[0, 0].diff() >= -1e-6).all()
        torch.testing.assert_close(soft[:, :, 19] + soft[:, :, 20], torch.ones(1, 30))

    def test_dilated_first_the_whole_mask_stays_one(self):
        mask = (rand(1, 40, 40) < 0.005).float()
        soft = feather(dilate(mask, 8), 4)  # a square of half-width 4 fits in a disc of radius 8
        torch.testing.assert_close(soft[mask > 0], torch.ones(int(mask.sum())))


class TestBoxes:
    @given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
    @settings(deadline=None)
    def test_whole_numbers_are_slices(self, left, top, right, bottom):
        expected = torch.zeros(1, 1, 12, 16)
        expected[..., top:bottom, left:right] = 1
        boxes = torch.tensor([[left, top, right, bottom]]).float()
        assert torch.equal(boxes_to_masks(boxes, 12, 16), expected)

    def test_a_pixel_is_inside_with_its_centre(self):
        (mask,) = boxes_to_masks(torch.tensor([[1.4, 0.6, 3.6, 1.5]]), 3, 5)
        assert mask[0].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
        (mask,) = boxes_to_masks(torch.tensor([[1.4, 0.6, 3.6, 1.6]]), 3, 5)
        assert mask[0].tolist() == [[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]

    def test_one_mask_per_box_and_outside_is_cut_off(self):
        boxes = torch.tensor([[-5.0, -5.0, 2.0, 1.0], [3.0, 2.0, 99.0, 99.0]])
        assert boxes_to_masks(boxes, 4, 6).sum(dim=(1, 2, 3)).tolist() == [2, 6]
        assert boxes_to_masks(torch.zeros(0, 4), 4, 6).shape == (0, 1, 4, 6)


class TestComposite:
    @given(masks(), SEEDS)
    @settings(deadline=None)
    def test_is_the_formula_and_exact_at_both_ends(self, mask, seed):
        shape = (mask.shape[0], 3, *mask.shape[-2:])
        source, edited = rand(*shape, seed=seed), rand(*shape, seed=seed + 1)
        result = composite(source, edited, mask)
        torch.testing.assert_close(result, source * (1 - mask) + edited * mask)
        wide = mask.expand_as(source)
        assert torch.equal(result[wide == 0], source[wide == 0])
        assert torch.equal(result[wide == 1], edited[wide == 1])
        assert torch.equal(composite(source, source, mask), source)

    def test_one_mask_serves_a_batch(self):
        source, edited, mask = torch.zeros(4, 3, 5, 5), torch.ones(4, 3, 5, 5), rand(1, 1, 5, 5)
        assert torch.equal(composite(source, edited, mask), mask.expand(4, 3, 5, 5))

    def test_has_the_gradient_of_the_formula(self):
        source, edited, mask = (
            t.double().requires_grad_() for t in (rand(3, 4, 4), rand(3, 4, 4), rand(1, 4, 4))
        )
        assert torch.autograd.gradcheck(composite, (source, edited, mask))


class TestIoU:
    def test_closed_form(self):
        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 6.0, 4.0], [6.0, 6.0, 8.0, 8.0]])
        masks = boxes_to_masks(boxes, 8, 8)
        assert iou(masks[:1], masks[1:2]).item() == pytest.approx(8 / 24)
        assert iou(masks[:1], masks[2:]).item() == 0

    @given(masks(), SEEDS)
    @settings(deadline=None)
    def test_properties(self, first, seed):
        second = (rand(*first.shape, seed=seed) < 0.3).float()
        value = iou(first, second)
        assert value.shape == first.shape[:-2]
        assert torch.equal(value, iou(second, first))
        assert ((value >= 0) & (value <= 1)).all()
        assert (iou(first, first) == 1).all()

    def test_two_empty_masks_agree_and_one_empty_does_not(self):
        empty, full = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
        assert iou(empty, empty).item() == 1
        assert iou(empty, full).item() == 0


class TestPointing:
    def test_the_maximum_decides(self):
        score, mask = rand(2, 6, 6), torch.zeros(2, 6, 6)
        score[0, 2, 3] = score[1, 4, 4] = 2
        mask[:, 2, 3] = 1
        assert pointing(score, mask).tolist() == [True, False]

    def test_a_shared_maximum_needs_the_majority(self):
        score, mask = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
        score[0, 0] = 1  # four pixels
        mask[0, 0, :2] = 1
        assert not pointing(score, mask).item()
        mask[0, 0, :3] = 1
        assert pointing(score, mask).item()

    def test_a_constant_map_points_at_nothing_small(self):
        mask = torch.zeros(1, 4, 4)
        mask[0, 0, 0] = 1
        assert not pointing(torch.ones(1, 4, 4), mask).item()


class TestDecodeMask:
    def encode(self, pixels, mode=None):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode=mode).save(buffer, format="PNG")
        return buffer.getvalue()

    def test_white_is_edit_and_grey_is_itself(self):
        levels = np.arange(256).reshape(16, 16)
        mask = decode_mask(self.encode(levels))
        assert mask.shape == (1, 16, 16)
        assert torch.equal(mask[0], torch.tensor(levels) / 255)

    def test_colours_count_by_their_brightness(self):
        colours = np.zeros((8, 8, 3))
        colours[0, 0], colours[0, 1], colours[0, 2] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        mask = decode_mask(self.encode(colours))
        torch.testing.assert_close(mask[0, 0, :4], torch.tensor([0.299, 0.587, 0.114, 0.0]))

    def test_transparent_is_not_white(self):
        pixels = np.full((8, 8, 4), 255)
        pixels[:, 2:4, 3], pixels[:, 4:, 3] = 51, 0
        mask = decode_mask(self.encode(pixels))
        expected = torch.tensor([1.0, 1.0, 0.2, 0.2, 0.0, 0.0, 0.0, 0.0]).expand(1, 8, 8)
        torch.testing.assert_close(mask, expected)
        assert (mask[0, 0, 4:] == 0).all()

    def test_errors_are_those_of_images(self):
        with pytest.raises(InvalidImageError, match="PNG, JPEG or WebP"):
            decode_mask(b"no mask")


def test_pictures_differ_by_the_mean_of_the_channel_that_differs_most():
    image = torch.zeros(3, 5, 5)
    other = image.clone()
    other[1, 0, 0] = 0.9
    # three pixels wide: a corner has four neighbours, an edge six, the inside nine
    assert differing(image, other, 0.16, 3)[0].nonzero().tolist() == [[0, 0]]
    assert differing(image, other, 0.14, 3)[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0]]
    assert differing(image, other, 0.09, 3).sum() == 4
    assert differing(image, other, 0.5, 1)[0].nonzero().tolist() == [[0, 0]]  # each pixel alone
    assert not differing(image, image, 0.0, 3).any()
