"""Running a stage of an edit to its end."""

from collections.abc import Generator
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


def finish(stage: Generator[P, None, R]) -> tuple[list[P], R]:
    """All that a stage reports, and what it gives."""
    reports: list[P] = []
    while True:
        try:
            reports.append(next(stage))
        except StopIteration as done:
            return reports, done.value
