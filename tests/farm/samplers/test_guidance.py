import pytest
import torch

from farm.samplers.guidance import guide


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 2.0), (1.0, 5.0), (7.5, 24.5)])
def test_guidance_moves_along_the_line_through_both_predictions(scale, expected):
    uncond, cond = torch.full((2, 3), 2.0), torch.full((2, 3), 5.0)
    torch.testing.assert_close(guide(uncond, cond, scale), torch.full((2, 3), expected))
