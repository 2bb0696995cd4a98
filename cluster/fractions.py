"""How several backbones share the accelerators of one machine: by memory, first the largest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

_RAYS_GRAIN = 10_000
"""Ray counts resources in ten-thousandths."""
_WEIGHT_FACTOR = 1.25
"""Memory while networks are loaded over their weights: buffers, and copies."""
_WORKING_BYTES = 2 * 2**30
"""For activations of the smallest batch with its backward pass. A guess: no GPU was measured."""


@dataclass(frozen=True)
class Placed:
    """One backbone's place.

    Attributes:
        name: of the backbone, or of the model set that it holds.
        accelerator: number of the device.
        share: of the device, as Ray's `num_gpus`; its batches may fill it.
    """

    name: str
    accelerator: int
    share: float


@dataclass(frozen=True)
class Sharing:
    """Where backbones go, and which have no room."""

    placed: tuple[Placed, ...]
    left_out: tuple[str, ...] = ()


def needed_bytes(weight_bytes: int) -> int:
    """Memory below which a backbone with so many bytes of weights cannot work."""
    return int(weight_bytes * _WEIGHT_FACTOR) + _WORKING_BYTES


def share_accelerators(weights: Mapping[str, int], memories: Sequence[int]) -> Sharing:
    """Put backbones on devices so that each has what it needs; what is over is divided likewise.

    The largest goes first, each onto the device with most room, so that small ones (CLIP, DINO) end
    up together and large ones apart. A backbone alone on its device has all of it.

    Args:
        weights: bytes of weights, loaded, by backbone.
        memories: bytes of each device.
    """
    room = list(memories)
    homes: dict[str, int] = {}
    left_out: list[str] = []
    for name, size in sorted(weights.items(), key=lambda item: (-item[1], item[0])):
        number = max(range(len(room)), key=room.__getitem__, default=None)
        if number is None or room[number] < needed_bytes(size):
            left_out.append(name)
            continue
        homes[name] = number
        room[number] -= needed_bytes(size)
    placed = [
        placed
        for number in range(len(memories))
        for placed in _divide(
            {name: needed_bytes(weights[name]) for name in homes if homes[name] == number},
            number,
        )
    ]
    return Sharing(tuple(placed), tuple(left_out))


def _divide(needs: Mapping[str, int], number: int) -> list[Placed]:
    """Shares of one device in proportion to needs, never more than 1 together.

    All needs together fit, so that none gets less than it needs.
    """
    total = sum(needs.values())
    return [
        Placed(name, number, floor(need / total * _RAYS_GRAIN) / _RAYS_GRAIN)
        for name, need in needs.items()
    ]
