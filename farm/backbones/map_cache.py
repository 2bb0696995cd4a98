"""Attention maps that can be computed again, kept while there is room."""

import hashlib
from collections import OrderedDict
from threading import Lock

from jaxtyping import Float
from torch import Tensor

Maps = tuple[Tensor, ...]
"""Maps of one sample by layer, each (heads, pixels, tokens)."""


def maps_digest(
    latents: Float[Tensor, "channels height width"],
    timestep: int,
    embeds: Float[Tensor, "tokens embed"],
) -> bytes:
    """Name of the maps that a UNet has for this input: equal bytes give equal maps."""
    digest = hashlib.blake2b(int(timestep).to_bytes(8, "little", signed=True), digest_size=16)
    for tensor in (latents, embeds):
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.digest()


class MapCache:
    """Maps by digest, the least recently used dropped first; safe to share between threads.

    Nothing depends on what is kept: a miss costs one forward pass.

    Args:
        max_bytes: room for maps; maps larger than that are not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._maps: OrderedDict[bytes, Maps] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._maps)

    def get(self, digest: bytes) -> Maps | None:
        with self._lock:
            found = self._maps.get(digest)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._maps.move_to_end(digest)
            return found

    def put(self, digest: bytes, maps: Maps) -> None:
        """Keep maps, dropping older ones to make room."""
        with self._lock:
            self._drop(digest)
            self._maps[digest] = maps
            self.bytes += _size(maps)
            while self.bytes > self.max_bytes:
                self._drop(next(iter(self._maps)))

    def _drop(self, digest: bytes) -> None:
        dropped = self._maps.pop(digest, None)
        if dropped is not None:
            self.bytes -= _size(dropped)


def _size(maps: Maps) -> int:
    return sum(layer.numel() * layer.element_size() for layer in maps)
