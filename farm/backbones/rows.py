"""Rows of stacked tensors that part and join between the steps of a stepped operation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from farm.calls import Midway


@dataclass(frozen=True, eq=False)
class Branches:
    """Several copies of a batch one after the other, as guidance has them: a row is one of each.

    It may stand among the tensors of a `Midway`. What is written into its tensor in place is
    written into the state.

    Attributes:
        tensor: (copies x batch, …).
        copies: how many.
    """

    tensor: Float[Tensor, "branches ..."] | Bool[Tensor, "branches ..."]
    copies: int

    def rows(self, rows: Sequence[int]) -> "Branches":
        """These items."""
        size = len(self.tensor) // self.copies
        chosen = [copy * size + row for copy in range(self.copies) for row in rows]
        return Branches(_rows(self.tensor, chosen), self.copies)

    @classmethod
    def joined(cls, parts: Sequence["Branches"]) -> "Branches":
        """Several batches as one."""
        copies = parts[0].copies
        chunks = [part.tensor.chunk(copies) for part in parts]
        return cls(torch.cat([chunk[n] for n in range(copies) for chunk in chunks]), copies)


State: TypeAlias = Mapping[str, Any]
"""Tensors with a leading batch axis, or `Branches`, by name."""


@dataclass(frozen=True, eq=False)
class Held:
    """One row of a batch between two steps; the batch's tensors are shared until rows part."""

    midway: Midway
    row: int


def joined_rows(held: Sequence[Held]) -> State:
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
    return {name: _joined([(m.tensors[name], rows) for m, rows in runs]) for name in first.tensors}


def parted(midway: Midway) -> list[Held]:
    """Each row of a batch."""
    return [Held(midway, row) for row in range(len(midway.phases))]


def _rows(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return tensor[rows[0] : rows[-1] + 1]
    return tensor[torch.tensor(rows, device=tensor.device)]


def _joined(parts: Sequence[tuple[Any, Sequence[int]]]) -> Any:
    if isinstance(parts[0][0], Branches):
        taken = [part.rows(rows) for part, rows in parts]
        return taken[0] if len(taken) == 1 else Branches.joined(taken)
    taken = [_rows(part, rows) for part, rows in parts]
    return taken[0] if len(taken) == 1 else torch.cat(taken)
