"""How far the salient thing reaches: the box about what looks to DINO like its middle."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from farm.methods.learnable_regions.anchors import stretched

_PEAK = 4
"""Power of the saliency that the seed is weighed by: nearly its peak, but never one cell alone."""
_SHARPNESS = 1.5
"""Power of the likeness: with more of it boxes cut corners off, with less they leave room."""


def thing_extent(
    features: Float[Tensor, "width rows columns"],
    saliency: Float[Tensor, "rows columns"],
    seen: Bool[Tensor, "rows columns"],
) -> Float[Tensor, "rows columns"]:
    """The box about what the picture is like at its most salient cells, 0 to 1.

    Saliency is smooth, and greatest in a thing's middle; DINO's features are much the same from
    one end of a thing to the other (arXiv:2109.14279, §3). With z the features less their mean, of
    unit length, and s the sum of saliency⁴ z, likeness is the positive part of cos(z, s),
    stretched, to the power of 1.5. What is like the thing and elsewhere is another thing: of each
    level of likeness, what hangs together with a cell whose saliency⁴ reaches that level counts.
    Regions are boxes, and one that is to hold all of a thing is larger than the thing: a cell
    counts as the smaller one of the greatest likenesses in its row and in its column, so that each
    level of the result is the box about that level of likeness.

    Args:
        features: DINO's of each cell.
        saliency: 0 to 1.
        seen: cells that show the picture and not the square's padding; the others are 0.
    """
    inside = seen.to(features.dtype)
    mean = (features * inside).sum(dim=(1, 2), keepdim=True) / inside.sum()
    found = F.normalize(features - mean, dim=0) * inside
    seed = F.normalize((found * saliency**_PEAK).sum(dim=(1, 2)), dim=0)
    likeness = stretched((found * seed[:, None, None]).sum(dim=0).clamp(min=0)) ** _SHARPNESS
    likeness = hanging_together(likeness, saliency**_PEAK)
    return torch.minimum(likeness.amax(dim=1)[:, None], likeness.amax(dim=0)[None])


def hanging_together(
    image: Float[Tensor, "rows columns"], marker: Float[Tensor, "rows columns"]
) -> Float[Tensor, "rows columns"]:
    """Morphological reconstruction by dilation: what of an image its marker reaches.

    Each level of the result is those parts of that level of the image, connected by their cells'
    sides, that hold a cell of that level of the marker (Vincent, IEEE Transactions on Image
    Processing 2(2), 1993).
    """
    reached = torch.minimum(image, marker)
    while True:
        rows = F.max_pool2d(reached[None], (3, 1), stride=1, padding=(1, 0))
        columns = F.max_pool2d(reached[None], (1, 3), stride=1, padding=(0, 1))
        further = torch.minimum(torch.maximum(rows, columns)[0], image)
        if torch.equal(further, reached):
            return reached
        reached = further
