"""When a stage will end, from how its steps went so far."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from serve.doors import Step


@dataclass(frozen=True)
class _First:
    """The first step that was seen of a stage, and when; seconds, monotonic."""

    stage: str
    step: int
    seen: float


class Pace:
    """Remembers when each running edit's stage was first seen."""

    def __init__(self) -> None:
        self._first: dict[str, _First] = {}

    def step(self, name: str, message: Mapping[str, Any] | None, now: float) -> Step | None:
        """A message of the progress board as a step with its remaining time."""
        if message is None:
            return None
        stage, step, total = str(message["stage"]), int(message["step"]), int(message["total"])
        first = self._first.get(name)
        if first is None or first.stage != stage or step < first.step:
            first = self._first[name] = _First(stage, step, now)
        done, left = step - first.step, max(0, total - step)
        eta = left * (now - first.seen) / done if done > 0 else None
        return Step(stage, step, total, message.get("loss"), eta)

    def keep(self, names: AbstractSet[str]) -> None:
        """Forget all other edits."""
        self._first = {name: first for name, first in self._first.items() if name in names}
