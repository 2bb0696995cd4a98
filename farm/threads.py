"""One thread of tensor operations: a sum that several threads share is rounded by their number."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(when: bool = True) -> Generator[None]:
    """Compute with one thread inside, with as many as before outside.

    A matrix product that is split over threads adds up in another order, so the same edit in a
    process of two threads and in a farm whose workers have one would differ in the last bit.

    Args:
        when: False leaves everything as it is.
    """
    before = torch.get_num_threads()
    if when:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if when:
            torch.set_num_threads(before)
