"""A farm that runs nothing and keeps its own time, for tests of the dispatcher."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

from farm.errors import (
    EditCancelledError,
    FarmError,
)
from farm.progress import STARTING
from farm.results import EditResult
from jobs.dispatch import Dispatcher, Limits
from tests.jobs.outcome_examples import done_edit


def result() -> EditResult:
    return done_edit().result


def edit(stage: str = "", name: str = "x"):
    stages = {"inversion": stage} if stage else {}
    return SimpleNamespace(stages=stages, edit_id=name)


@dataclass
class FakeFlight:
    """Each edit takes `lasts` seconds, then gives the next of its outcomes (a result for None)."""

    outcomes: dict[str, list[FarmError | None]] = field(default_factory=dict)
    lasts: float = 1.0
    silent: set[str] = field(default_factory=set)
    healthy: bool = True
    places: int | None = None
    now: float = 0.0
    running: dict[str, float] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    stopped: list[tuple[str, bool]] = field(default_factory=list)
    most: int = 0
    restarts: int = 0
    closed: bool = False
    cost: float = 0.0
    heals_at: float = math.inf
    """When an ill farm is well again, and no edit fails or is silent any more."""
    trainers: int | None = None
    """How many edits Ray has room for: the others wait, and are silent."""
    stays: set[str] = field(default_factory=set)
    """Edits that say that they begin, and then nothing."""
    lost_until: float = 0.0
    """Until then the machine of those that are silent is not there; then they go on elsewhere."""
    ends_with: FarmError = field(default_factory=lambda: EditCancelledError("stopped"))
    begun: dict[str, float] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > self.heals_at:
            self.healthy = True
            self.outcomes.clear()
            self.silent.clear()

    def listen(self, watch) -> None:
        pass

    def start(self, name, request) -> None:
        assert name not in self.running
        self.running[name] = self.now
        self.starts.append((self.now, name))
        self.most = max(self.most, len(self.running))
        self.begin()

    def begin(self) -> None:
        for name in self.running:
            if self.trainers is None or len(self.begun) < self.trainers:
                self.begun.setdefault(name, self.now)

    def finished(self, timeout):
        self.now += timeout if self.running else 0.0
        if 0.0 < self.lost_until <= self.now:
            self.silent.clear()
        ended = []
        for name in list(self.running):
            since = self.begun.get(name, math.inf)
            forced = (name, True) in self.stopped
            asked = (name, False) in self.stopped and name not in self.silent
            if forced or asked:
                ended.append((name, self.ends_with))
                self.stopped = [s for s in self.stopped if s[0] != name]
            elif name not in self.silent | self.stays and self.now - since >= self.lasts:
                left = self.outcomes.get(name, [])
                ended.append((name, (left.pop(0) if left else None) or result()))
        for name, _ in ended:
            del self.running[name]
            self.begun.pop(name, None)
        self.begin()
        return ended

    def messages(self):
        return {
            name: {
                "stage": STARTING if name in self.stays else "inversion",
                "step": 1 if name in self.silent | self.stays else int(2 * (self.now - since)),
                "total": 100,
                "detail": {"accelerator_seconds": self.cost * (self.now - since)},
            }
            for name, since in self.begun.items()
        }

    def is_placed(self, name) -> bool:
        return self.now >= self.lost_until

    def stop(self, name, *, force) -> None:
        self.stopped.append((name, force))

    def is_healthy(self) -> bool:
        return self.healthy

    def restart_backbones(self) -> None:
        self.restarts += 1

    def load(self):
        return {}

    def close(self) -> None:
        self.closed = True


def dispatcher(flight: FakeFlight, *, in_flight: int = 4, **options) -> Dispatcher:
    limits = {k: options.pop(k) for k in list(options) if k in Limits.__dataclass_fields__}
    notes: list[tuple[str, dict]] = []
    made = Dispatcher(
        flight,
        Limits(in_flight=in_flight, **limits),
        note=lambda kind, about: notes.append((kind, dict(about))),
        clock=flight.clock,
        sleep=flight.sleep,
        **options,
    )
    made.notes = notes  # type: ignore[attr-defined]
    return made


def outcomes(made: Dispatcher, names, stage=lambda name: name) -> dict[str, object]:
    found = {}
    for ended in made.run((name, edit(stage(name), name)) for name in names):
        assert ended.name not in found, "one last outcome each"
        found[ended.name] = ended.outcome
    assert made.flight.closed
    return found
