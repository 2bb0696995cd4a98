"""Memory that is kept is not zeroed by the system again."""

import platform
import subprocess
import sys

import pytest

_COUNT = """
import resource, sys, torch
from farm.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**24)
before = faults()
for _ in range(40):
    torch.empty(2**24).fill_(1)  # 64 MiB, beyond what glibc ever learns to keep
sys.stdout.write(str(faults() - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is told")
def test_large_tensors_come_from_what_was_freed() -> None:
    given_back, kept = (_faults("given back"), _faults("kept"))
    assert given_back > 40 * 2**26 / 2**21  # pages of 2 MiB at the largest, each time anew
    assert kept < given_back / 4


def _faults(how: str) -> int:
    run = subprocess.run(
        [sys.executable, "-c", _COUNT, how], capture_output=True, text=True, check=True
    )
    return int(run.stdout)
