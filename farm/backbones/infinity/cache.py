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

    @classmethod
    def resumed(cls, keys: Heads, values: Heads, length: int) -> "LayerCache":
        """A cache that has so many tokens already, in the room that another was given.

        Args:
            keys: with room for all, as `room` gave them.
            values: likewise.
            length: tokens in it.
        """
        cache = cls(keys.shape[2])
        cache._keys, cache._values, cache._length = keys, values, length
        return cache

    @property
    def room(self) -> tuple[Heads, Heads]:
        """Keys and values with the room for those to come; of a cache that was added to."""
        assert self._keys is not None, "a cache has room from its first scale on"
        assert self._values is not None, "a cache has room from its first scale on"
        return self._keys, self._values

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
