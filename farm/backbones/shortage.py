"""Which errors say that memory ran out, of main memory's, torch's and the driver's."""

import torch


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an operation failed for lack of memory alone, and nothing is broken."""
    if isinstance(error, torch.AcceleratorError):  # the driver says so, not torch's allocator
        return "out of memory" in str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError)
