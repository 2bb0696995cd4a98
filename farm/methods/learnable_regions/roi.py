"""Features of boxes: each bin is the mean of bilinear samples (Mask R-CNN's RoIAlign)."""

import torch
from jaxtyping import Float
from torch import Tensor


def roi_align(
    features: Float[Tensor, "channels rows columns"],
    boxes: Float[Tensor, "boxes 4"],
    size: int,
    *,
    scale: float = 1.0,
    aligned: bool = True,
) -> Float[Tensor, "boxes channels {size} {size}"]:
    """Each box cut into `size` × `size` bins; differentiable with respect to the features.

    As torchvision's `roi_align` with `sampling_ratio=-1`: a bin of n cells along an axis has ⌈n⌉
    samples along it, and samples more than a cell outside count as 0. Rows and columns separate,
    so it is two products per box.

    Args:
        features: of cells.
        boxes: left, top, right, bottom.
        size: bins along a side.
        scale: cells per unit of the boxes.
        aligned: cell k covers k to k + 1; otherwise cell k lies at k, and no box is smaller than a
            cell.
    """
    shift = 0.5 if aligned else 0.0
    start = boxes[:, :2] * scale - shift
    length = (boxes[:, 2:] - boxes[:, :2]) * scale
    if not aligned:
        length = length.clamp(min=1)
    rows, columns = features.shape[1:]
    across = _weights(start[:, 0], length[:, 0], size, columns)
    down = _weights(start[:, 1], length[:, 1], size, rows)
    return torch.einsum("nph,chw,nqw->ncpq", down, features, across)


def _weights(
    start: Float[Tensor, " boxes"], length: Float[Tensor, " boxes"], size: int, cells: int
) -> Float[Tensor, "boxes {size} {cells}"]:
    """How much each cell along an axis counts in each bin."""
    bin_length = length / size
    samples = bin_length.ceil()  # none where a box is empty, whose features are 0
    most = max(1, int(samples.max()))
    divisor = samples.clamp(min=1)
    number = torch.arange(most)
    counts = number < samples[:, None]  # (boxes, samples)
    bins = torch.arange(size)[None, :, None] * bin_length[:, None, None]
    offsets = (number + 0.5) * (bin_length / divisor)[:, None]
    place = start[:, None, None] + bins + offsets[:, None]  # (boxes, size, samples)
    inside = (place >= -1) & (place <= cells)
    place = place.clamp(0, cells - 1)
    weights = (1 - (place[..., None] - torch.arange(cells)).abs()).clamp(min=0)
    weights = weights * (inside & counts[:, None])[..., None]
    return weights.sum(dim=2) / divisor[:, None, None]
