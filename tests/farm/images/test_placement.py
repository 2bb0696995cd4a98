import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from farm.errors import InvalidImageError, InvalidRequestError
from farm.images import DecodedImage, Window, fit_to_model, restore

MODES = st.sampled_from(["crop", "pad"])
SIDES = st.integers(8, 40)
# torch computes sample positions up to 80 in float32 (rounding 80 · 2^-24 = 5e-6), Pillow in
# double; the kernel's slope is about 1, and colours are in [0, 1].
BICUBIC = 1e-5


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def original_of(image):
    return DecodedImage(image, None, "PNG", "RGB")


def unchecked(function):
    """Without the shape checker that tests put in front: production has our own checks only."""
    return getattr(function, "__wrapped__", function)


def pillow_resize(image, height, width):
    """Bicubic with antialiasing by another hand, channel by channel in float."""
    channels = [
        np.asarray(Image.fromarray(c.numpy()).resize((width, height), Image.Resampling.BICUBIC))
        for c in image
    ]
    return torch.tensor(np.stack(channels)).clamp(0, 1)


class TestFit:
    @pytest.mark.parametrize(("shape", "window"), [
        ((40, 61), Window(0, 10, 40, 40)),
        ((61, 40), Window(10, 0, 40, 40)),
        ((40, 40), Window(0, 0, 40, 40)),
    ])  # fmt: skip
    def test_crop_takes_the_centre_square(self, shape, window):
        image = rand(3, *shape)
        model_image, placement = fit_to_model(image, 40)
        assert placement.seen == window
        assert torch.equal(model_image, window.of(image))

    @pytest.mark.parametrize("size", [16, 30, 80])
    def test_scaling_is_pillows_bicubic(self, size):
        image = rand(3, 48, 37)
        model_image, _ = fit_to_model(image, size)
        expected = pillow_resize(image[:, 5:42], size, size)
        torch.testing.assert_close(model_image, expected, rtol=0, atol=BICUBIC)

    def test_pad_keeps_the_whole_image_and_repeats_its_border(self):
        image = rand(3, 20, 40)
        model_image, placement = fit_to_model(image, 40, mode="pad")
        assert placement.square == Window(10, 0, 20, 40)
        assert torch.equal(model_image[:, 10:30], image)
        assert torch.equal(model_image[:, :10], image[:, :1].expand(-1, 10, -1))
        assert torch.equal(model_image[:, 30:], image[:, -1:].expand(-1, 10, -1))

    def test_overshoot_is_clamped(self):
        image = torch.zeros(3, 32, 32)
        image[:, :, 16:] = 1
        model_image, _ = fit_to_model(image, 96)
        assert model_image.min() == 0
        assert model_image.max() == 1

    def test_masks_take_the_same_way(self):
        mask = rand(1, 30, 50)
        model_mask, placement = fit_to_model(mask, 16)
        assert model_mask.shape == (1, 16, 16)
        assert placement == fit_to_model(rand(3, 30, 50), 16)[1]

    @pytest.mark.parametrize(("size", "mode"), [(0, "crop"), (-3, "pad"), (16, "stretch")])
    def test_bad_settings_are_refused(self, size, mode):
        with pytest.raises(InvalidRequestError, match="expected a size of at least 1"):
            unchecked(fit_to_model)(rand(3, 16, 16), size, mode=mode)


class TestRestore:
    @given(MODES, st.integers(8, 40), st.booleans())
    @settings(deadline=None)
    def test_round_trip_is_bit_identical_where_nothing_is_scaled(self, mode, size, masked):
        original = original_of(rand(3, size, size))
        model_image, placement = fit_to_model(original.image, size, mode=mode)
        assert torch.equal(model_image, original.image)
        mask = rand(1, size, size, seed=1) if masked else None
        assert torch.equal(restore(model_image, original, placement, mask), original.image)

    @given(MODES, SIDES, SIDES, SIDES)
    @settings(deadline=None)
    def test_an_unchanged_square_with_a_mask_is_bit_identical_at_any_size(self, mode, h, w, size):
        original = original_of(rand(3, h, w))
        model_image, placement = fit_to_model(original.image, size, mode=mode)
        mask = torch.ones(1, size, size)
        assert torch.equal(restore(model_image, original, placement, mask), original.image)

    @given(MODES, SIDES, SIDES, SIDES)
    @settings(deadline=None)
    def test_any_edit_with_an_empty_mask_is_bit_identical(self, mode, h, w, size):
        original = original_of(rand(3, h, w))
        _, placement = fit_to_model(original.image, size, mode=mode)
        edited, mask = rand(3, size, size, seed=1), torch.zeros(1, size, size)
        assert torch.equal(restore(edited, original, placement, mask), original.image)

    @given(MODES, SIDES, SIDES, SIDES, st.booleans())
    @settings(deadline=None)
    def test_the_result_is_an_image_of_the_original_size(self, mode, h, w, size, masked):
        original = original_of(rand(3, h, w))
        before = original.image.clone()
        _, placement = fit_to_model(original.image, size, mode=mode)
        mask = rand(1, size, size, seed=2) if masked else None
        result = restore(rand(3, size, size, seed=1), original, placement, mask)
        assert result.shape == (3, h, w)
        assert 0 <= result.min() <= result.max() <= 1
        assert torch.equal(original.image, before)  # the input is not written to

    def test_what_a_crop_left_out_is_untouched(self):
        original = original_of(rand(3, 32, 64))
        _, placement = fit_to_model(original.image, 16)
        result = restore(torch.full((3, 16, 16), 0.25), original, placement)
        assert torch.equal(result[:, :, :16], original.image[:, :, :16])
        assert torch.equal(result[:, :, 48:], original.image[:, :, 48:])
        # A constant stays constant under bicubic: its weights sum to 1.
        torch.testing.assert_close(result[:, :, 16:48], torch.full((3, 32, 32), 0.25))

    def test_without_a_mask_the_square_is_scaled_up(self):
        original = original_of(rand(3, 60, 60))
        _, placement = fit_to_model(original.image, 24)
        edited = rand(3, 24, 24, seed=1)
        expected = pillow_resize(edited, 60, 60)
        torch.testing.assert_close(
            restore(edited, original, placement), expected, rtol=0, atol=BICUBIC
        )

    def test_with_a_mask_the_change_is_added_and_detail_survives(self):
        """A shift of brightness in the left half: a closed form away from the mask's border."""
        original = original_of(0.3 + 0.2 * rand(3, 64, 64))
        model_image, placement = fit_to_model(original.image, 16)
        mask = torch.zeros(1, 16, 16)
        mask[:, :, :8] = 1
        result = restore(model_image + 0.25, original, placement, mask)
        change = result - original.image
        # Bicubic reaches 2 model pixels, 8 pixels of the original, to either side of column 32.
        torch.testing.assert_close(change[:, :, :24], torch.full((3, 64, 24), 0.25))
        assert torch.equal(result[:, :, 40:], original.image[:, :, 40:])

    def test_padding_of_the_edited_square_is_dropped(self):
        original = original_of(rand(3, 20, 40))
        model_image, placement = fit_to_model(original.image, 40, mode="pad")
        spoiled = torch.zeros_like(model_image)
        spoiled[:, 10:30] = model_image[:, 10:30]
        assert torch.equal(restore(spoiled, original, placement), original.image)

    def test_at_equal_size_an_edit_comes_back_to_the_bit(self):
        original = original_of(rand(3, 16, 16))
        _, placement = fit_to_model(original.image, 16)
        edited = rand(3, 16, 16, seed=1)
        assert torch.equal(restore(edited, original, placement), edited)

    @pytest.mark.parametrize(("edited", "image", "mask", "name"), [
        ((3, 15, 15), (3, 20, 30), None, "edited"),
        ((3, 16, 16), (3, 20, 31), None, "original"),
        ((3, 16, 16), (3, 20, 30), (1, 20, 30), "mask"),
    ])  # fmt: skip
    def test_foreign_shapes_are_refused(self, edited, image, mask, name):
        _, placement = fit_to_model(rand(3, 20, 30), 16)
        with pytest.raises(InvalidImageError, match=f"{name} has shape"):
            unchecked(restore)(
                rand(*edited), original_of(rand(*image)), placement, mask and rand(*mask)
            )
