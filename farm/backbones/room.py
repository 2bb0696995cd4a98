"""What stays in main memory, and what is computed twice, where an accelerator is too small.

Decided once, while networks are loaded, from what they will take and the free memory. Networks
that run once or twice an edit are the first to stay in main memory: accelerate then carries each
layer's weights over as it is computed.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from accelerate import cpu_offload
from torch import nn

from farm.errors import ModelSetError

M = TypeVar("M", bound=nn.Module)

OFFLOADABLE = ("t5", "text_encoder", "image_encoder", "vae")
"""Parts of a model set that may stay in main memory, first those that are missed least."""
BATCH_ROOM = 8 << 30
"""Bytes to leave for what is computed: a value gradient of Stable Diffusion takes 0.9 GB a sample
(specs/style_diffusion.md §9)."""
SMALLEST_ROOM = 2 << 30
"""Bytes without which no batch is computed, however little there is; `cluster/fractions.py` counts
on it where it says who has room."""
_SOURCES_IN_MAIN_MEMORY = 1 << 30
_MOST_SOURCES = 16 << 30
"""A source of Stable Diffusion 1 takes 1.35 GB for 30 steps in half precision, one of the scenes
set 12 MB for 20."""
_BLOCK_BYTES = 1.25 * (1 << 30)
"""What a block of Infinity-2B keeps for its backward pass at 10521 tokens (specs/edit_infinity.md);
it grows with tokens and width."""
_BLOCK_NUMBERS = 10521 * 2048


def bytes_left(device: str) -> int | None:
    """What this process may still take of an accelerator, of its share where several have one.

    Memory that is reserved and not used counts; ask before steps are captured, whose pools are
    theirs alone.
    """
    if torch.device(device).type != "cuda":
        return None
    number = torch.device(device).index  # None is the present one; shares take no bare "cuda"
    free, total = torch.cuda.mem_get_info(number)
    used = torch.cuda.memory_allocated(number)
    own = int(total * torch.cuda.get_per_process_memory_fraction(number)) - used
    return min(own, free + torch.cuda.memory_reserved(number) - used)


def batch_room(device: str) -> int:
    """Bytes to leave for what is computed; less where this process has a share of the device."""
    if torch.device(device).type != "cuda":
        return BATCH_ROOM
    share = torch.cuda.get_per_process_memory_fraction(torch.device(device).index)
    return max(SMALLEST_ROOM, int(BATCH_ROOM * share))


def source_cache_bytes(left: int | None, *, reserve: int = BATCH_ROOM) -> int:
    """Room for the attention of edits' sources: half of what batches leave over.

    Args:
        left: bytes of the accelerator, networks loaded; None: main memory.
        reserve: of which are left for batches.
    """
    if left is None:
        return _SOURCES_IN_MAIN_MEMORY
    return min(_MOST_SOURCES, max(0, left - reserve) // 2)


def parts_to_offload(
    sizes: Mapping[str, int], room: int | None, *, reserve: int = BATCH_ROOM
) -> frozenset[str]:
    """Parts that stay in main memory so that the others and a batch fit.

    Where they all do and there is still no room for the reserve, batches are small.

    Args:
        sizes: bytes by part.
        room: bytes of the accelerator that are this process' to take; None: no limit.
        reserve: of which are left for batches.

    Raises:
        ModelSetError: the others do not fit either way, with the smallest batch.
    """
    if room is None:
        return frozenset()
    away: list[str] = []
    need = sum(sizes.values()) + reserve
    for part in (name for name in OFFLOADABLE if name in sizes):
        if need <= room:
            break
        away.append(part)
        need -= sizes[part]
    need += min(reserve, SMALLEST_ROOM) - reserve
    if need > room:
        raise ModelSetError(
            f"the networks need {need / 1e9:.1f} GB on the accelerator with "
            f"{', '.join(away) or 'nothing'} left in main memory, and {room / 1e9:.1f} GB are "
            "free: "
            "take a smaller model set, weights in half precision (--variant fp16), or another card"
        )
    return frozenset(away)


def carried(module: M, device: str) -> M:
    """A module whose weights stay where they are and visit the device, layer by layer."""
    cpu_offload(module, execution_device=torch.device(device))
    return module


def recomputes(*, depth: int, width: int, tokens: int, room: int | None) -> bool:
    """Whether a training step of an Infinity must compute its blocks twice, for lack of memory.

    Args:
        depth: blocks.
        width: of the transformer.
        tokens: of a picture.
        room: free bytes, its weights loaded; None: no limit.
    """
    if room is None:
        return False
    return depth * _BLOCK_BYTES * (tokens * width / _BLOCK_NUMBERS) > room
