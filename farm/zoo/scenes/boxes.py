"""Boxes around objects."""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.zoo.scenes.vocabulary import SIZE


def bounding_boxes(masks: Float[Tensor, "pictures 64 64"]) -> Float[Tensor, "pictures 4"]:
    """Left, top, right, bottom (exclusive) of what each mask covers at all."""
    covered = masks > 0
    sides: list[Tensor] = []
    for axis in (1, 2):
        line = covered.any(axis)
        first = line.long().argmax(1)
        last = SIZE - line.flip(1).long().argmax(1)
        sides.append(torch.stack([first, last], 1))
    columns, rows = sides
    return torch.stack([columns[:, 0], rows[:, 0], columns[:, 1], rows[:, 1]], 1).float()
