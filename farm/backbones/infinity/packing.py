"""All bits of a picture as bytes: eight to a byte, scales in order, each (height, width, bit).

42 kB for a picture of a megapixel; what artifacts hold and what crosses the wire.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from farm.backbones.infinity.schedules import Schedule
from farm.errors import InvalidRequestError


def packed_length(schedule: Schedule, channels: int) -> int:
    """Bytes of one picture."""
    return -(-schedule.num_cells * channels // 8)


def pack_bits(bits: Sequence[Bool[Tensor, "batch bits _ _"]]) -> UInt8[Tensor, "batch bytes"]:
    """Bits of every scale as bytes, most significant bit first as numpy's `packbits`."""
    flat = torch.cat([scale.permute(0, 2, 3, 1).flatten(1) for scale in bits], dim=1)
    missing = -flat.shape[1] % 8
    flat = torch.nn.functional.pad(flat, (0, missing))
    weights = _weights(flat.device)
    return (flat.unflatten(1, (-1, 8)) * weights).sum(-1).to(torch.uint8)


def unpack_bits(
    packed: UInt8[Tensor, "batch bytes"], schedule: Schedule, channels: int
) -> tuple[Bool[Tensor, "batch {channels} _ _"], ...]:
    """Inverse of `pack_bits`.

    Raises:
        InvalidRequestError: the number of bytes is another than the schedule's.
    """
    expected = packed_length(schedule, channels)
    if packed.shape[1] != expected:
        raise InvalidRequestError(
            f"found {packed.shape[1]} bytes of bits, expected {expected} for {channels} bits a "
            f"cell in the schedule {schedule.name}: encode the picture with this model set"
        )
    flat = (packed[:, :, None] & _weights(packed.device)).ne(0).flatten(1)
    scales: list[Tensor] = []
    start = 0
    for height, width in schedule.latent_grids:
        end = start + height * width * channels
        scale = flat[:, start:end].unflatten(1, (height, width, channels))
        scales.append(scale.permute(0, 3, 1, 2).contiguous())
        start = end
    return tuple(scales)


def _weights(device: torch.device) -> UInt8[Tensor, " 8"]:
    return torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)
