"""How many items of a key fit into a batch, found by trying."""

from collections.abc import Callable
from typing import Protocol

import torch

_KEPT_FREE = 0.1
"""Of the memory, for what varies between batches of one size."""


class MemoryGauge(Protocol):
    """Memory of the device that batches are computed on."""

    def start(self) -> None:
        """A batch is about to be computed."""
        ...

    def used(self) -> int:
        """Bytes that the batch needed at its worst, beyond what was there before."""
        ...

    def room(self) -> int:
        """Bytes that a batch may need."""
        ...

    def ran_out(self) -> None:
        """Memory ran out: give back what is kept for nothing."""
        ...


class CudaGauge:
    """PyTorch's own memory on one GPU.

    Args:
        device: which.
        fraction: of its memory that this process may have, where several share it.
    """

    def __init__(self, device: str, fraction: float = 1.0) -> None:
        self._device = torch.device(device)
        numbered = ":" in device
        self._index = self._device.index if numbered else torch.cuda.current_device()
        self._fraction = fraction
        self._before = 0
        self._promised: Callable[[], int] = lambda: 0
        if fraction < 1:
            torch.cuda.set_per_process_memory_fraction(fraction, self._index)

    def leave(self, promised: Callable[[], int]) -> None:
        """Leave so many bytes to others of this process: caches that are not full yet."""
        self._promised = promised

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def used(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def room(self) -> int:
        free, total = torch.cuda.mem_get_info(self._device)
        spare = self._spare()
        held = torch.cuda.memory_reserved(self._device) - spare
        return min(int(total * self._fraction) - held, free + spare) - self._promised()

    def _spare(self) -> int:
        """Reserved bytes that any tensor may have; those of captured steps are not among them."""
        return sum(
            segment["total_size"] - segment["allocated_size"]
            for segment in torch.cuda.memory_snapshot()
            if segment["device"] == self._index and tuple(segment["segment_pool_id"]) == (0, 0)
        )

    def ran_out(self) -> None:
        torch.cuda.empty_cache()


class Cap:
    """Largest batch of one key.

    Where memory is measured it starts at one item and doubles while twice as many are expected to
    fit; what was once too large is never tried again. Where it is not, only running out of it
    lowers the cap.

    Args:
        largest: never more than that.
        gauge: of the device's memory, where there is one.
    """

    def __init__(self, largest: int, gauge: MemoryGauge | None) -> None:
        self._gauge = gauge
        self._ceiling = largest
        self._per_item = 0.0
        self.size = largest if gauge is None else 1

    def start(self) -> None:
        """A batch is about to be computed; in the compute thread."""
        if self._gauge is not None:
            self._gauge.start()

    def fitted(self, items: int) -> None:
        """A batch was computed; in the compute thread."""
        if self._gauge is None:
            return
        self._per_item = max(self._per_item, self._gauge.used() / items)
        if items < self.size or self.size == self._ceiling:
            return
        room = (1 - _KEPT_FREE) * self._gauge.room()
        fits = _rounded(int(room / self._per_item)) if self._per_item > 0 else self._ceiling
        self.size = max(self.size, min(2 * self.size, fits, self._ceiling))

    def made_room(self) -> None:
        """Caches were dropped, for memory ran out; in the compute thread."""
        if self._gauge is not None:
            self._gauge.ran_out()
            self._gauge.start()

    def ran_out(self, items: int) -> None:
        """A batch of so many needed more memory than there is: half of it is the most from now."""
        self._ceiling = min(self._ceiling, max(1, _rounded(items // 2)))
        self.size = min(self.size, self._ceiling)
        if self._gauge is not None:
            self._gauge.ran_out()


def _rounded(items: int) -> int:
    """The power of two below: captured steps are filled up to the one above."""
    return 1 << (items.bit_length() - 1) if items > 0 else 0


def padded_size(items: int, cap: int) -> int:
    """The power of two from `items` up, but no more than `cap`: so shapes are few."""
    return max(items, min(1 << (items - 1).bit_length(), cap))
