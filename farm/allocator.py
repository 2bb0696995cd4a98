"""How the C library's allocator treats memory that torch gives back on a CPU."""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h
_NEVER = 2**31 - 1
_STEP = 2**27


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next allocation.

    By default glibc gives every large tensor back to the system, and each new one is zeroed page by
    page again: up to half of the time of encoding pictures for a training was spent there
    (docs/performance.md). For processes that do one kind of work again and again; their size stays
    at its peak.

    Returns:
        Whether it was done: under Linux with glibc alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _STEP))
    return all(bool(mallopt(option, value)) for option, value in settings)
