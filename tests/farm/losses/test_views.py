import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tv
from torchvision.transforms import InterpolationMode

from farm.losses.colours import hue_shifted, luma
from farm.losses.views import VIEW_NUMBERS, apply_views, plain_views, sample_views
from farm.training import keyed_generator

CROP, FLIP, AFFINE = slice(0, 3), 3, slice(4, 7)
CORNERS, JITTER, GREY = slice(7, 15), slice(15, 20), 20
MANY = sample_views(4000, keyed_generator("views"))


def smooth(size=64, batch=1, seed=0):
    """Pictures without fine detail, so that one resampling is like another."""
    noise = torch.rand(batch, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)


def one_view(**columns):
    view = plain_views(1)
    for name, value in columns.items():
        place = globals()[name]
        view[0, place] = torch.tensor(value)
    return view


def applied(image, view, size=None):
    return apply_views(image, view[None], size or image.shape[-1])[:, 0]


def test_a_plain_view_changes_nothing():
    image = smooth()
    torch.testing.assert_close(applied(image, plain_views(1)), image, atol=1e-5, rtol=0)


def test_a_mirrored_view_is_the_picture_backwards():
    image = smooth()
    torch.testing.assert_close(
        applied(image, one_view(FLIP=1.0)), image.flip(-1), atol=1e-5, rtol=0
    )


def test_a_crop_is_the_part_enlarged():
    image = smooth()
    view = one_view(CROP=[0.25, 0.125, 0.5])
    expected = F.interpolate(image[:, :, 8:40, 16:48], (64, 64), mode="bilinear")
    # away from the crop's border, over which a view may look
    torch.testing.assert_close(
        applied(image, view)[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("angle", [-15.0, 0.0, 8.0])
def test_turn_and_shift_are_torchvision_s(angle):
    image = smooth()
    view = one_view(AFFINE=[angle, 4 / 64, -6 / 64])
    expected = tv.affine(
        image, angle, [4, -6], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR, fill=[1.0] * 3
    )
    compare(applied(image, view), expected)


def test_perspective_is_torchvision_s():
    image, last = smooth(), 63
    start = [[0, 0], [last, 0], [last, last], [0, last]]
    end = [[6, 3], [57, 9], [60, 50], [2, 58]]
    moved = (torch.tensor(end) - torch.tensor(start)) / 64
    view = one_view(CORNERS=moved.flatten().tolist())
    expected = tv.perspective(image, start, end, InterpolationMode.BILINEAR, fill=[1.0] * 3)
    # torchvision's corners are the middles of pixels, ours the picture's own corners
    compare(applied(image, view), expected, tolerance=0.06)


def compare(found, expected, tolerance=0.02):
    """Equal but for the rim of the picture, where each blends with white in its own way."""
    inside = (expected.mean(1) < 0.98) & (found.mean(1) < 0.98)
    inside = F.avg_pool2d(inside.float()[:, None], 5, 1, 2)[:, 0] > 0.999
    assert inside.float().mean() > 0.4
    difference = (found - expected).abs().amax(1)[inside]
    assert difference.quantile(0.99) < tolerance


def test_what_lies_outside_is_white():
    image = torch.zeros(1, 3, 32, 32)
    seen = applied(image, one_view(AFFINE=[0.0, 0.5, 0.0]))
    assert (seen[..., :15] == 1).all()
    assert (seen[..., 17:] == 0).all()


def test_colours_are_torchvision_s_one_after_the_other():
    image = smooth()
    view = one_view(JITTER=[1.0, 1.1, 0.9, 1.07, -0.06])
    expected = tv.adjust_brightness(image, 1.1)
    expected = tv.adjust_contrast(expected, 0.9)
    expected = tv.adjust_saturation(expected, 1.07)
    expected = tv.adjust_hue(expected, -0.06)
    torch.testing.assert_close(applied(image, view), expected, atol=2e-5, rtol=0)


def test_factors_count_only_where_colours_change():
    image = 255 * smooth()  # Q6: nothing may be clamped by a view that leaves colours alone
    view = one_view(JITTER=[0.0, 1.1, 0.9, 1.07, -0.06])
    torch.testing.assert_close(applied(image, view), image, atol=2e-3, rtol=0)


def test_unscaled_results_go_blank_under_changed_colours():
    """Q6: pixels of 0 to 255 are clamped at 1."""
    image = 255 * (0.1 + 0.9 * smooth())
    seen = applied(image, one_view(JITTER=[1.0, 1.05, 0.95, 1.02, 0.03]))
    assert seen.std() < 1e-6


def test_grey_is_torchvision_s():
    image = smooth()
    expected = tv.rgb_to_grayscale(image, 3)
    torch.testing.assert_close(applied(image, one_view(GREY=1.0)), expected, atol=1e-5, rtol=0)
    assert luma(image).shape == (1, 1, 64, 64)


def test_a_whole_circle_of_hue_is_no_change():
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    image[0, :, 0] = 0.5  # greys have no hue
    image[1, :, 0] = 0.0
    shift = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(hue_shifted(image, shift), image, atol=1e-5, rtol=0)


def test_large_pictures_are_made_smaller_without_aliasing():
    """Stripes finer than a view's pixels become grey, not coarse stripes."""
    stripes = (torch.arange(256) % 2).float().expand(1, 3, 256, 256)
    assert applied(stripes, plain_views(1), size=32).std() < 0.05


def test_a_batch_is_its_pictures_one_by_one():
    images, views = smooth(batch=2), sample_views(3, keyed_generator("x"))
    both = apply_views(images, torch.stack([views, views.flip(0)]), 24)
    assert both.shape == (2, 3, 3, 24, 24)
    for n, own in enumerate([views, views.flip(0)]):
        for v, row in enumerate(own):
            alone = apply_views(images[n : n + 1], row[None, None], 24)[0, 0]
            torch.testing.assert_close(both[n, v], alone, atol=1e-5, rtol=0)


def test_gradients_reach_the_picture():
    image = smooth(16).double().requires_grad_()
    views = sample_views(2, keyed_generator("g")).double()
    loss = apply_views(image, views[None], 8).square().sum()
    (gradient,) = torch.autograd.grad(loss, image)
    step = 1e-6
    direction = torch.rand(image.shape, generator=torch.Generator().manual_seed(1)).double()
    ahead = apply_views(image + step * direction, views[None], 8).square().sum()
    found = ((ahead - loss) / step).item()
    assert found == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


def test_views_are_drawn_from_their_key_alone():
    before = torch.get_rng_state()
    again = sample_views(4000, keyed_generator("views"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again, MANY)
    assert MANY.shape == (4000, VIEW_NUMBERS)


def test_the_first_view_sees_the_whole_picture():
    assert MANY[0, CROP].tolist() == [0, 0, 1]
    assert MANY[1:, 2].max() < 1


def test_chances_and_ranges_are_the_published_ones():
    """Spec §2; shares of 4000 views have a standard error under .008."""
    share = {
        "flip": (MANY[:, FLIP], 0.5),
        "affine": (MANY[:, 4].abs() > 0, 0.8),
        "perspective": (MANY[:, CORNERS].abs().sum(1) > 0, 0.5),
        "jitter": (MANY[:, 15], 0.7),
        "grey": (MANY[:, GREY], 0.15),
    }
    for name, (found, expected) in share.items():
        assert found.float().mean().item() == pytest.approx(expected, abs=0.03), name
    side, place = MANY[1:, 2], MANY[1:, :2]
    assert side.min() >= 0.6
    assert side.mean().item() == pytest.approx(0.8, abs=0.01)
    assert (place + side[:, None] <= 1 + 1e-6).all()
    turned = MANY[MANY[:, 4].abs() > 0]
    assert turned[:, 4].abs().max() <= 15
    assert turned[:, 5:7].abs().max() <= 0.1
    assert turned[:, 4].abs().mean().item() == pytest.approx(7.5, abs=0.3)
    inwards = MANY[:, CORNERS] * torch.tensor([1, 1, -1, 1, -1, -1, 1, -1])
    assert inwards.min() >= 0
    assert inwards.max() <= 0.2
    factors = MANY[:, 16:19]
    assert 0.9 <= factors.min() <= factors.max() <= 1.1
    assert MANY[:, 19].abs().max() <= 0.1
