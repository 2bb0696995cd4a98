"""When a stage will end, from how its steps went so far."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from serve.doors import Step


@dataclass
class _Stage:
    """The first step that was seen of a stage and when (seconds, monotonic), and the latest."""

    name: str
    first: int
    seen: float
    latest: int


class Pace:
    """Remembers when each running edit's stage was first seen."""

    def __init__(self) -> None:
        self._stages: dict[str, _Stage] = {}

    def step(self, name: str, message: Mapping[str, Any] | None, now: float) -> Step | None:
        """A message of the progress board as a step with its remaining time."""
        if message is None:
            return None
        stage, step, total = str(message["stage"]), int(message["step"]), int(message["total"])
        known = self._stages.get(name)
        if known is None or known.name != stage or step < known.latest:  # it may begin again
            known = self._stages[name] = _Stage(stage, step, now, step)
        known.latest = step
        done, left = step - known.first, max(0, total - step)
        eta = left * (now - known.seen) / done if done > 0 else None
        return Step(stage, step, total, message.get("loss"), eta, message.get("preview"))

    def keep(self, names: AbstractSet[str]) -> None:
        """Forget all other edits."""
        self._stages = {name: stage for name, stage in self._stages.items() if name in names}
