"""In which steps which control is on (StyleDiffusion spec §7, table of step windows).

The released program's arithmetic is kept to the digit: cross-attention counts with T + 1 rows and
rounds down, self-attention counts with T and rounds down, values compare real numbers.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Window: TypeAlias = tuple[float, float]
"""Begin and end as shares of all steps, each in [0, 1]."""


def window_of(tau: float | Window) -> Window:
    """A share of the steps, counted from the first, as a window; a window as it is."""
    return tau if isinstance(tau, tuple) else (0.0, tau)


def value_active(step: int, num_steps: int, tau: float) -> bool:
    """Whether the target's values are learned ones: tau_v."""
    return step < num_steps * tau


def self_active(step: int, num_steps: int, window: Window) -> bool:
    """Whether the target takes the source's self-attention: tau_s, and tau_u."""
    begin, end = window
    return int(num_steps * begin) <= step < int(num_steps * end)


def cross_windows(
    num_steps: int,
    num_tokens: int,
    default: Window,
    exceptions: Iterable[tuple[Sequence[int], Window]] = (),
) -> Float[Tensor, "rows tokens"]:
    """1 where a target token takes the source's cross-attention: tau_c.

    Args:
        num_steps: steps of the sampling; there is one row more than that.
        num_tokens: positions of the text encoder.
        default: window of all tokens but the exceptions.
        exceptions: windows of the tokens at given positions.
    """
    rows = num_steps + 1
    table = torch.zeros(rows, num_tokens)
    everywhere = (range(num_tokens), default)
    for positions, (begin, end) in (everywhere, *exceptions):
        columns = list(positions)
        table[:, columns] = 0
        table[int(begin * rows) : int(end * rows), columns] = 1
    return table
