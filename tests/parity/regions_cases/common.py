"""Which check reads which arrays, and what several of them compare with."""

import re
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from farm.methods.learnable_regions.training import gumbel_choice
from tests.parity.regions_set import GoldenSet, Window

ABSOLUTE = 1e-5
Check = Callable[..., None]
CHECKS: list[tuple[re.Pattern[str], Check]] = []


def checks(pattern: str) -> Callable[[Check], Check]:
    """Says which arrays a function checks; groups of the pattern are its further arguments."""

    def register(check: Check) -> Check:
        CHECKS.append((re.compile(pattern), check))
        return check

    return register


def found_check(array: str) -> tuple[Check, tuple[str, ...]] | None:
    """The check of an array, and the groups of its name."""
    for pattern, check in CHECKS:
        match = pattern.fullmatch(array)
        if match is not None:
            return check, match.groups()
    return None


def close(found: Tensor, expected: Tensor, tolerance: float = ABSOLUTE) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@cache
def window_of(golden: GoldenSet, name: int) -> Window:
    return golden.window(name)


def chosen_sizes(golden: GoldenSet, window: int) -> Tensor:
    noise = golden.array(f"gumbel_w{window}")
    return gumbel_choice(window_of(golden, window).log_probs, noise)
