import pytest
import torch

from farm.images import Window, fit_to_model
from farm.masks import Box
from farm.methods.learnable_regions.canvas import (
    changed_part,
    crop_window,
    cut_out,
    paste,
    paste_mask,
    scaled_down,
)
from farm.methods.learnable_regions.config import RenderConfig

CONFIG = RenderConfig()


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def inside(box, window):
    return (
        window.left <= box.left
        and window.top <= box.top
        and box.right <= window.left + window.width
        and box.bottom <= window.top + window.height
    )


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box(50, 40, 70, 60), Window(18, 28, 64, 64)),  # never enlarged: the model's own size
        (Box(40, 30, 100, 70), Window(0, 10, 120, 120)),  # twice the longer side, moved inwards
        (Box(0, 0, 10, 10), Window(0, 0, 64, 64)),
        (Box(190, 110, 200, 120), Window(56, 136, 64, 64)),
        (Box(0, 0, 200, 100), Window(0, 0, 120, 200)),  # all there is
    ],
)
def test_windows_of_a_picture_of_200x120(box, expected):
    window = crop_window(box, 120, 200, 64, 2.0)
    assert window == expected
    assert inside(box, window)


def test_a_picture_of_the_model_s_size_is_seen_whole():
    """The scenes: nothing is cropped, nothing is scaled."""
    image = picture(64, 64)
    window = crop_window(Box(20, 20, 30, 30), 64, 64, 64, 2.0)
    canvas, hole = cut_out(image, Box(20, 20, 30, 30), window, 64, 4)
    assert window == Window(0, 0, 64, 64)
    outside = (hole.picture == image).all(0)
    assert outside[:20].all()
    assert not outside[20:30, 20:30].any()
    assert canvas.placement.square == Window(0, 0, 64, 64)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (64, 64, Box(21, 18, 33, 40)),
        (150, 90, Box(11, 100, 43, 149)),
        (40, 200, Box(60, 3, 99, 37)),
    ],
)
def test_the_hole_covers_the_region_in_whole_cells(height, width, box):
    window = crop_window(box, height, width, 64, 2.0)
    canvas, hole = cut_out(picture(height, width), box, window, 64, 4)
    assert hole.mask.shape == (1, 16, 16)
    grey = (hole.picture == 0.5).all(0)
    cells = grey.unflatten(0, (16, 4)).unflatten(2, (16, 4)).float().mean(dim=(1, 3))
    assert torch.equal(cells, hole.mask[0])  # whole cells, and the mask says which
    # every pixel of the region was drawn: the model's square, put back, is grey all over it
    drawn = torch.where(grey, 1.0, 0.0).expand(3, -1, -1)
    result, _ = paste(torch.zeros(3, height, width), drawn, canvas, CONFIG)
    middle = result[:, box.top + 4 : box.bottom - 4, box.left + 4 : box.right - 4]
    assert middle.min() > 0.99


@pytest.mark.parametrize(("height", "width"), [(64, 64), (300, 200)])
@pytest.mark.parametrize("box", [Box(20, 30, 50, 60), Box(0, 0, 40, 64), Box(30, 5, 33, 8)])
def test_outside_the_mask_every_bit_stays(height, width, box):
    """Acceptance 3 of the spec."""
    image = picture(height, width)
    window = crop_window(box, height, width, 64, 2.0)
    canvas, _ = cut_out(image, box, window, 64, 4)
    result, mask = paste(image, picture(64, 64, seed=1), canvas, CONFIG)
    untouched = (mask == 0).expand_as(image)
    assert torch.equal(result[untouched], image[untouched])
    region = torch.zeros(1, height, width, dtype=torch.bool)
    region[:, box.top : box.bottom, box.left : box.right] = True
    assert not (mask[~region] > 0).any()  # the rim is soft inwards
    assert mask[region].max() > 1 - 1e-6  # a sum of the kernel
    assert not torch.equal(result, image)
    assert 0 <= result.min() <= result.max() <= 1


def test_the_rim_is_soft_inside_and_hard_at_the_picture_s_edge():
    mask = paste_mask(Box(0, 20, 40, 60), 64, 64, RenderConfig(feather=0.2))[0]
    row = mask[40]
    assert (row[:32] == 1).all()
    assert (row[32:40].diff() < 0).all()
    assert row[39] > 0
    assert (row[40:] == 0).all()
    assert paste_mask(Box(5, 5, 9, 9), 64, 64, RenderConfig(feather=0.0)).sum() == 16


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_the_smallest_regions_have_a_middle(side):
    mask = paste_mask(Box(10, 10, 10 + side, 10 + side), 32, 32, RenderConfig(feather=0.5))
    assert mask.sum() > 0
    assert (mask > 0).sum() <= side**2


def test_what_was_drawn_lands_in_its_place_upright():
    """A bright quarter of what was drawn is a bright quarter of the region."""
    image = torch.zeros(3, 128, 128)
    box = Box(64, 0, 128, 64)
    canvas, _ = cut_out(image, box, Window(0, 64, 64, 64), 32, 4)
    drawn = torch.zeros(3, 32, 32)
    drawn[:, :16, 16:] = 1  # top right
    result, _ = paste(image, drawn, canvas, CONFIG)
    assert result[:, 4:28, 100:124].min() > 0.9
    assert result[:, 4:28, 68:90].max() < 0.1
    assert result[:, 36:60, 68:124].max() < 0.1


def test_as_released_everything_that_was_seen_is_replaced():
    image, drawn = picture(64, 64), picture(64, 64, seed=1)
    canvas, _ = cut_out(image, Box(20, 20, 30, 30), Window(0, 0, 64, 64), 64, 4)
    result, mask = paste(image, drawn, canvas, RenderConfig(paste=False))
    assert torch.equal(result, drawn)
    assert (mask == 1).all()


def test_what_did_not_change_in_the_region_keeps_the_original_s_pixels():
    """D16: a thing drawn on a background that came back a little other than it was."""
    image = picture(64, 64)
    box = Box(8, 8, 56, 56)
    canvas, _ = cut_out(image, box, Window(0, 0, 64, 64), 64, 4)
    drawn = (image + 0.05).clamp(0, 1)
    drawn[:, 24:40, 24:40] = 1 - image[:, 24:40, 24:40].round()
    changed = changed_part(image, drawn, canvas, 0.16, 4)
    whole, region = paste(image, drawn, canvas, CONFIG)
    result, mask = paste(image, drawn, canvas, CONFIG, changed)
    assert torch.equal(mask, region)
    middle = (slice(None), slice(26, 38), slice(26, 38))
    torch.testing.assert_close(result[middle], whole[middle])  # a sum of the kernel
    kept = torch.ones(64, 64, dtype=torch.bool)
    kept[18:46, 18:46] = False  # half a cell of the mean, the border, and the border's own fade
    assert torch.equal(result[:, kept], image[:, kept])
    assert not torch.equal(whole[:, kept], image[:, kept])


def test_what_changed_is_found_where_it_is_at_the_picture_s_own_resolution():
    """A wide picture with room around its square: the bright quarter alone is another."""
    image = torch.full((3, 120, 240), 0.2)
    canvas, _ = cut_out(image, Box(60, 20, 180, 100), Window(10, 30, 100, 180), 64, 4)
    drawn = torch.full((3, 64, 64), 0.2)
    top, left = canvas.placement.square.top, canvas.placement.square.left
    height, width = canvas.placement.square.height, canvas.placement.square.width
    drawn[:, top : top + height // 2, left + width // 2 : left + width] = 0.9
    changed = changed_part(image, drawn, canvas, 0.16, 4)
    assert changed.shape == (1, 100, 180)
    assert changed[:, :44, 98:].min() > 0.99
    assert changed[:, 64:].max() == 0
    assert changed[:, :, :76].max() == 0
    assert changed_part(image, drawn, canvas, 0.75, 4).max() == 0


@pytest.mark.parametrize(("height", "width"), [(256, 256), (200, 400), (400, 200)])
def test_small_pictures_for_clip_are_large_ones_made_small(height, width):
    image = torch.full((3, height, width), 0.2)
    square, placement = fit_to_model(image, 64, mode="pad")
    box = Box(width // 4, height // 4, width // 2, height // 2)
    window = crop_window(box, height, width, 64, 2.0)
    canvas, _ = cut_out(image, box, window, 64, 4)
    drawn = torch.full((3, 64, 64), 0.9)
    large, _ = paste(image, drawn, canvas, CONFIG)
    expected, _ = fit_to_model(large, 64, mode="pad")
    found, _ = paste(square, drawn, scaled_down(canvas, placement), CONFIG)
    # borders may move by less than a small pixel
    differs = ((found - expected).abs() > 0.05).all(0).float().mean()
    assert differs < 0.03
    assert found.max() > 0.89
