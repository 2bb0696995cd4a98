"""Rows of stacked tensors that part and join between the steps of a stepped operation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from farm.calls import Midway, Tensors


@dataclass(frozen=True, eq=False)
class Held:
    """One row of a batch between two steps; the batch's tensors are shared until rows part."""

    midway: Midway
    row: int


def joined_rows(held: Sequence[Held]) -> Tensors:
    """The state of these rows, stacked.

    Rows that stay together, which is the usual case, are not copied.
    """
    first = held[0].midway
    together = [one.row for one in held if one.midway is first]
    if together == list(range(len(held))) and len(first.phases) == len(held):
        return first.tensors
    runs: list[tuple[Midway, list[int]]] = []
    for one in held:
        if runs and runs[-1][0] is one.midway:
            runs[-1][1].append(one.row)
        else:
            runs.append((one.midway, [one.row]))
    return {
        name: _cat([_rows(m.tensors[name], rows) for m, rows in runs]) for name in first.tensors
    }


def parted(midway: Midway) -> list[Held]:
    """Each row of a batch."""
    return [Held(midway, row) for row in range(len(midway.phases))]


def _rows(tensor: Tensor, rows: list[int]) -> Tensor:
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return tensor[rows[0] : rows[-1] + 1]
    return tensor[torch.tensor(rows, device=tensor.device)]


def _cat(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
