"""Augmented crops of rendered scenes for self-distillation, drawn for a whole batch at once."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def random_crops(
    images: Float[Tensor, "batch 3 height width"],
    size: int,
    area: tuple[float, float],
    generator: torch.Generator,
) -> Float[Tensor, "batch 3 size size"]:
    """One crop of each picture, resized, perhaps flipped, with its colours shaken.

    Args:
        images: in [0, 1].
        size: side of the crops in pixels.
        area: smallest and largest share of the picture that a crop covers.
        generator: decides everything.
    """
    boxes = _boxes(len(images), area, generator)
    flip = torch.where(torch.rand(len(images), generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = (boxes[:, 2] - boxes[:, 0]) * flip
    theta[:, 1, 1] = boxes[:, 3] - boxes[:, 1]
    theta[:, 0, 2] = boxes[:, 0] + boxes[:, 2] - 1
    theta[:, 1, 2] = boxes[:, 1] + boxes[:, 3] - 1
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    crops = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _shake_colours(crops, generator)


def _boxes(
    count: int, area: tuple[float, float], generator: torch.Generator
) -> Float[Tensor, "count 4"]:
    """Left, top, right, bottom in shares of the side; aspect ratios from 3/4 to 4/3."""
    low, high = area
    share = low + (high - low) * torch.rand(count, generator=generator)
    aspect = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * 0.2877)
    width = (share * aspect).sqrt().clamp(max=1)
    height = (share / aspect).sqrt().clamp(max=1)
    left = (1 - width) * torch.rand(count, generator=generator)
    top = (1 - height) * torch.rand(count, generator=generator)
    return torch.stack([left, top, left + width, top + height], 1)


def _shake_colours(
    crops: Float[Tensor, "batch 3 size size"], generator: torch.Generator
) -> Float[Tensor, "batch 3 size size"]:
    """Brightness, contrast and saturation of four in five; a tenth lose their colour, some blur."""

    def draw(low: float, high: float) -> Tensor:
        values = low + (high - low) * torch.rand(len(crops), generator=generator)
        return values.view(-1, 1, 1, 1)

    chosen = (draw(0.0, 1.0) < 0.8).float()
    grey = (draw(0.0, 1.0) < 0.1).float()
    blurred = (draw(0.0, 1.0) < 0.3).float()
    brightness, contrast, saturation = draw(0.7, 1.3), draw(0.7, 1.3), draw(0.7, 1.3)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    shaken = crops * brightness
    mean = shaken.mean((1, 2, 3), keepdim=True)
    shaken = mean + (shaken - mean) * contrast
    luma = (shaken * weights).sum(1, keepdim=True)
    shaken = luma + (shaken - luma) * saturation
    crops = crops + chosen * (shaken - crops)
    luma = (crops * weights).sum(1, keepdim=True)
    crops = crops + grey * (luma - crops)
    soft = F.avg_pool2d(F.pad(crops, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (crops + blurred * (soft - crops)).clamp(0, 1)
