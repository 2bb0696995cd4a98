"""What a frozen network computed and can compute again, kept while there is room."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import Generic, TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor

Maps: TypeAlias = tuple[Tensor, ...]
"""Cross-attention maps of one sample by layer, each (heads, pixels, tokens)."""
States: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""Queries and keys of one sample's attention by layer, each (heads, places, head_dim)."""
Kept = TypeVar("Kept", Maps, States)


def maps_digest(
    latents: Float[Tensor, "channels height width"],
    timestep: int,
    embeds: Float[Tensor, "tokens embed"],
    value_embeds: Float[Tensor, "tokens embed"] | None = None,
    *,
    label: str = "",
) -> bytes:
    """Name of what a UNet's attention has for this input: equal bytes give equal attention.

    `label` tells apart what must not be mixed: kinds of things, and calls that are computed alone
    (whose rounding nothing else may have touched).
    """
    digest = hashlib.blake2b(int(timestep).to_bytes(8, "little", signed=True), digest_size=16)
    digest.update(label.encode() + b"\0")
    for tensor in (latents, embeds, *(() if value_embeds is None else (value_embeds,))):
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.digest()


class DigestCache(Generic[Kept]):
    """Values by digest, the least recently used dropped first; safe to share between threads.

    Nothing depends on what is kept: a miss costs one forward pass.

    Args:
        max_bytes: room for values; one larger than that is not kept at all.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: bytes) -> Kept | None:
        with self._lock:
            found = self._kept.get(digest)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(digest)
            return found

    def put(self, digest: bytes, value: Kept) -> None:
        """Keep a value, dropping older ones to make room."""
        with self._lock:
            self._drop(digest)
            self._kept[digest] = value
            self.bytes += _size(value)
            while self.bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Drop all; whoever asks computes it again."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0

    def describe(self) -> dict[str, int]:
        """How full it is and how often it helped."""
        return {
            "entries": len(self),
            "bytes": self.bytes,
            "hits": self.hits,
            "misses": self.misses,
        }

    def _drop(self, digest: bytes) -> None:
        dropped = self._kept.pop(digest, None)
        if dropped is not None:
            self.bytes -= _size(dropped)


class MapCache(DigestCache[Maps]):
    """Recorded cross-attention maps."""


class StateCache(DigestCache[States]):
    """Queries and keys of source rows, which the targets of an edit look with."""


def _size(value: Maps | States) -> int:
    layers = value if isinstance(value, tuple) else [t for pair in value.values() for t in pair]
    return sum(layer.numel() * layer.element_size() for layer in layers)
