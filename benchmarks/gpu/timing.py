"""Seconds and bytes on whatever device there is."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], Any]) -> float:
    """Of one call, from an idle device to an idle device."""
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], Any], *, rounds: int = 10, warm_up: int = 3) -> float:
    """Of a call that has been made before."""
    for _ in range(warm_up):
        call()
    return statistics.median(seconds_of(call) for _ in range(rounds))


def forget_peak() -> None:
    """Begin to measure the device's memory anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> float:
    """Most memory that tensors took on the device since then; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
