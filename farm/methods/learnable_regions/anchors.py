"""Where regions are centred: peaks of what DINO looks at and, if asked, of what the words mean."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from farm.errors import InvalidRequestError
from farm.images import Placement

_LEAST_DISTANCE = 0.5


def mean_attention(
    attention: Float[Tensor, "heads rows columns"],
) -> Float[Tensor, "rows columns"]:
    """Mean over heads of [CLS]'s attention to each cell."""
    return attention.mean(dim=0)


def saliency_map(
    attention: Float[Tensor, "rows columns"],
    relevance: Float[Tensor, "_ _"] | None,
    grounding: float,
    smoothing: float,
) -> Float[Tensor, "rows columns"]:
    """Attention and relevance, each between 0 and 1, mixed and smoothed; 0 to 1.

    Args:
        attention: of [CLS] to each cell.
        relevance: of each of CLIP's patches to the words; any size, None without grounding.
        grounding: the relevance's share.
        smoothing: deviation of a Gaussian, in cells.
    """
    mixed = (1 - grounding) * stretched(attention)
    if relevance is not None:
        size = attention.shape[-2:]
        resized = F.interpolate(relevance[None, None], size, mode="bilinear")[0, 0]
        mixed = mixed + grounding * stretched(resized)
    radius = math.ceil(2 * smoothing)
    if radius > 0:
        mixed = _smoothed(mixed, smoothing, min(radius, *(n - 1 for n in mixed.shape)))
    return stretched(mixed)


def stretched(map_: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The map with 0 as its least and 1 as its greatest number; a map of one number is 0."""
    low, high = map_.aminmax()
    return (map_ - low) / (high - low).clamp(min=torch.finfo(map_.dtype).tiny)


def _smoothed(
    map_: Float[Tensor, "rows columns"], deviation: float, radius: int
) -> Float[Tensor, "rows columns"]:
    steps = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
    kernel = kernel / kernel.sum()
    soft = F.pad(map_[None, None], (radius,) * 4, mode="replicate")
    soft = F.conv2d(F.conv2d(soft, kernel[None, None, None]), kernel[None, None, :, None])
    return soft[0, 0]


def seen_cells(placement: Placement, grid: int) -> Bool[Tensor, "{grid} {grid}"]:
    """Cells whose middle shows the original and not the square's padding.

    Of a picture thinner than a cell, those that its own middle lies in.
    """
    square, cell = placement.square, placement.size / grid
    rows = _seen(square.top, square.height, cell, grid)
    return rows[:, None] & _seen(square.left, square.width, cell, grid)


def _seen(start: int, length: int, cell: float, grid: int) -> Bool[Tensor, " {grid}"]:
    middle = (torch.arange(grid) + 0.5) * cell
    seen = (start <= middle) & (middle < start + length)
    seen[int((start + length / 2) / cell)] = True
    return seen


def pick_anchors(
    saliency: Float[Tensor, "rows columns"],
    count: int,
    distance: float,
    allowed: Bool[Tensor, "rows columns"] | None = None,
) -> Int[Tensor, "{count} 2"]:
    """The most salient cells, none nearer to a better one than `distance`: NMS of centres.

    Where the picture has no room for so many, the distance is halved until it has; no cell comes
    twice. Equal saliency: the first in reading order.

    Args:
        saliency: finite.
        count: of anchors.
        distance: between the middles of cells.
        allowed: cells that may be anchors; None: all.

    Returns:
        Row and column of each, by falling saliency within each distance.

    Raises:
        InvalidRequestError: there are fewer cells than anchors.
    """
    free = torch.ones_like(saliency, dtype=torch.bool) if allowed is None else allowed.clone()
    if count > int(free.sum()):
        raise InvalidRequestError(
            f"point_number is {count}, but the picture has {int(free.sum())} cells for anchors: "
            "lower point_number"
        )
    order = [n for n in _falling(saliency) if free.flatten()[n]]
    places = [divmod(n, saliency.shape[1]) for n in order]
    chosen: list[tuple[int, int]] = []  # D2
    while len(chosen) < count:
        for place in places:
            if len(chosen) == count:
                break
            if all(math.dist(place, other) >= max(distance, _LEAST_DISTANCE) for other in chosen):
                chosen.append(place)
        distance /= 2
    return torch.tensor(chosen)


def released_anchors(
    scores: Float[Tensor, "rows columns"], count: int, window: int
) -> Int[Tensor, "{count} 2"]:
    """The most salient cells that lie `window` or more from each border (Q8, spec §1.3).

    Where there are too few, the most salient ones of all follow, be they chosen already or not.
    """
    rows, columns = scores.shape
    order = [divmod(n, columns) for n in _falling(scores)]
    inner = [
        (r, c)
        for r, c in order
        if window <= r <= rows - 1 - window and window <= c <= columns - 1 - window
    ]
    return torch.tensor((inner[:count] + order[: max(0, count - len(inner))])[:count])


def cumulative_mass(attention: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Share of the attention in each cell and in all with less (spec §1.3); keeps the order."""
    values, order = attention.flatten().sort()
    mass = (values / values.sum()).cumsum(dim=0)
    return torch.empty_like(mass).scatter(0, order, mass).unflatten(0, attention.shape)


def _falling(scores: Float[Tensor, "rows columns"]) -> list[int]:
    return scores.flatten().argsort(descending=True, stable=True).tolist()
