import pytest
import torch
from torchvision.ops import roi_align as torchvision_roi_align

from farm.methods.learnable_regions.roi import roi_align

BOXES = torch.tensor(
    [
        [0.0, 0, 12, 9],
        [2.5, 1.25, 7.75, 8],
        [3, 3, 3.5, 3.25],
        [-2, -3, 4, 20],
        [10, 7, 15, 12],
        [5, 5, 5, 5],
    ]
)


def features():
    return torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("scale", [1.0, 0.125, 1.5])
@pytest.mark.parametrize("aligned", [True, False])
def test_it_is_torchvision_s(size, scale, aligned):
    expected = torchvision_roi_align(
        features()[None], [BOXES], size, spatial_scale=scale, sampling_ratio=-1, aligned=aligned
    )
    found = roi_align(features(), BOXES, size, scale=scale, aligned=aligned)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_box_of_one_cell_is_that_cell():
    found = roi_align(features(), torch.tensor([[4.0, 2, 5, 3]]), 1)
    torch.testing.assert_close(found[0, :, 0, 0], features()[:, 2, 4])


def test_a_ramp_s_bins_are_their_middles():
    ramp = torch.arange(12.0).repeat(1, 9, 1)
    found = roi_align(ramp, torch.tensor([[2.0, 1, 10, 9]]), 4)[0, 0]
    # cell k holds k, and its middle lies at k + 1/2; bins are two cells wide
    assert found[0].tolist() == pytest.approx([2.5, 4.5, 6.5, 8.5])


def test_gradient_matches_finite_differences():
    map_ = features().double().requires_grad_()
    boxes = BOXES[:3].double()
    assert torch.autograd.gradcheck(lambda m: roi_align(m, boxes, 2), (map_,))
