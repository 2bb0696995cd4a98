"""Keys and values of the scales that are done, allocated once."""

import torch
from jaxtyping import Float
from torch import Tensor

from farm.backbones.infinity.schedules import Schedule

Heads = Float[Tensor, "batch heads tokens head_dim"]
Seen = Float[Tensor, "batch heads seen head_dim"]


class LayerCache:
    """Keys and values of one block.

    Args:
        capacity: tokens to keep; what comes after is used once and forgotten, so the last and
            longest scale takes no room.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, key: Heads, value: Heads) -> tuple[Seen, Seen]:
        """All keys and values so far and these."""
        if self._keys is None or self._values is None:
            batch, heads, _, head_dim = key.shape
            shape = (batch, heads, self._capacity, head_dim)
            self._keys, self._values = key.new_empty(shape), value.new_empty(shape)
        start, end = self._length, self._length + key.shape[2]
        if end > self._capacity:
            return (
                torch.cat([self._keys[:, :, :start], key], dim=2),
                torch.cat([self._values[:, :, :start], value], dim=2),
            )
        self._keys[:, :, start:end] = key
        self._values[:, :, start:end] = value
        self._length = end
        return self._keys[:, :, :end], self._values[:, :, :end]


def new_cache(schedule: Schedule, depth: int) -> list[LayerCache]:
    """One cache per block, for one picture's generation."""
    return [LayerCache(schedule.num_tokens - schedule.lengths[-1]) for _ in range(depth)]
