"""Which edit starts when, what is tried again, what is stopped: the loop of a job, without Ray.

It draws edits as room becomes free, follows the policy of `farm.runner.failures`, ends edits that
hang, waits while the machine is ill, and stops as a whole when somebody or the budget says so.
Several edits that need the same inversion are not started beside each other until it is there: the
others' places go to edits of other images.
"""

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from farm.errors import EditHungError, FarmError, UnavailableError
from farm.progress import STARTING
from farm.results import EditResult
from farm.runner import PreparedEdit
from farm.runner.failures import POLICY, FailureKind, Tries, classify
from farm.runner.running import SLOW_START

Message: TypeAlias = Mapping[str, Any]
Messages: TypeAlias = Mapping[str, Message]
"""By name of a running edit: `stage`, `step`, `total` and more of its latest step."""
Watch: TypeAlias = Callable[[Messages], None]
Outcome: TypeAlias = EditResult | FarmError

_TICK = 0.5  # seconds
_WAITING_PER_PLACE = 4  # edits drawn ahead, to find some that need no inversion now being made
_KNOWN_STAGES = 100_000
_STOP_PATIENCE = 15.0  # seconds between the wish to stop and the end of the process
_LONGEST_PROBE_PAUSE = 30.0
_ROOM_SECONDS = 30.0  # without a single edit that has begun, before somebody is told
_NO_ROOM = (
    "no edit has begun yet: all wait for room in the cluster (`ray status` tells what is taken)"
)
_MOST_EXCUSES = 3  # of one edit that hung while the machine was ill: it may be what makes it so
_GROWS_AFTER = 16  # edits that went well, for one more beside after memory was short


class Flight(Protocol):
    """Where edits run; `actors.flight.Flight` is one."""

    @property
    def places(self) -> int | None:
        """How many edits can run at once; any number if None."""
        ...

    def listen(self, watch: Watch) -> None:
        """Tell this of steps while `finished` does not return, if it computes meanwhile."""
        ...

    def start(self, name: str, request: PreparedEdit) -> None:
        """Start an edit."""
        ...

    def finished(self, timeout: float) -> list[tuple[str, Outcome]]:
        """Edits that have ended; waits until one has, or so many seconds."""
        ...

    def messages(self) -> Messages:
        """The latest step of each running edit."""
        ...

    def is_placed(self, name: str) -> bool:
        """Whether the machine is there that an edit last told of."""
        ...

    def stop(self, name: str, *, force: bool) -> None:
        """End an edit, between two steps or at once."""
        ...

    def is_healthy(self) -> bool:
        """Whether what all edits need is there."""
        ...

    def restart_backbones(self) -> None:
        """End and start anew what may hang."""
        ...

    def load(self) -> Mapping[str, float]:
        """`busy_seconds`, `items` and `batches` of the backbones so far."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...


class Wish(StrEnum):
    """What somebody wants of a running job."""

    run = "run"
    pause = "pause"
    cancel = "cancel"


class Stopped(StrEnum):
    """Why a job ended with edits left."""

    cancelled = "cancelled"
    budget = "budget"
    infrastructure = "infrastructure"


@dataclass(frozen=True)
class Limits:
    """How a job is run.

    Attributes:
        in_flight: edits that run at once.
        hang_seconds: without progress, after which an edit that has begun is taken for hung.
        patience: seconds to wait for a machine that does not answer before the job stops.
        accelerator_seconds: that the whole job may cost; no limit if None.
    """

    in_flight: int = 8
    hang_seconds: float = 600.0
    patience: float = 1800.0
    accelerator_seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """An edit with its last outcome; seconds of wall time from its first start, and all starts."""

    name: str
    outcome: Outcome
    seconds: float
    tries: int


@dataclass
class _Edit:
    """One edit from its first start to its outcome."""

    prepared: PreparedEdit
    tries: Tries = field(default_factory=lambda: Tries({}))
    not_before: float = 0.0
    started: float | None = None
    seen: Message | None = None
    seen_at: float = 0.0
    hung: bool = False
    excused: bool = False
    """Whether the machine was ill when it was found to hang."""
    excuses: int = 0
    stopping_since: float | None = None
    forced: bool = False

    @cached_property
    def first(self) -> str:
        """Digest of the stage that it needs first; its own id if it has none."""
        return next(iter(self.prepared.stages.values()), self.prepared.edit_id)

    @property
    def has_step(self) -> bool:
        """Whether its trainer has told of more than that it is there."""
        return self.seen is not None and self.seen["stage"] != STARTING

    @property
    def spent(self) -> float:
        """Accelerator seconds so far, by its own account."""
        detail = (self.seen or {}).get("detail") or {}
        return float(detail.get("accelerator_seconds", 0.0))


@dataclass
class Dispatcher:
    """Runs edits to their last outcome.

    Attributes:
        flight: where they run.
        limits: see there.
        watch: told about twice a second what runs.
        wish: asked about twice a second what somebody wants.
        is_store_well: asked while edits fail, whether the store answers.
        note: told of everything out of the ordinary: kind of event, and figures of it.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """

    flight: Flight
    limits: Limits
    watch: Watch = lambda _: None
    wish: Callable[[], Wish] = lambda: Wish.run
    is_store_well: Callable[[], bool] = lambda: True
    note: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _about: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stopped: Stopped | None = None
    spent: float = 0.0
    """Accelerator seconds of edits that have ended."""
    _running: dict[str, _Edit] = field(default_factory=dict[str, _Edit])
    _waiting: deque[tuple[str, _Edit]] = field(default_factory=deque[tuple[str, _Edit]])
    _made: "OrderedDict[str, None]" = field(default_factory=OrderedDict[str, None])
    _making: Counter[str] = field(default_factory=Counter[str])
    """Running edits by the stage that they need first."""
    _room: int = 0
    _good: int = 0
    _ill_since: float | None = None
    _cramped_since: float | None = None
    _next_probe: float = 0.0
    _probe_pause: float = 1.0
    _wished: Wish = Wish.run

    def run(self, edits: Iterable[tuple[str, PreparedEdit]]) -> Iterator[Ended]:
        """Outcomes as they come; afterwards `stopped` says whether edits were left, and why.

        Args:
            edits: by names that are unique; drawn only as room becomes free.
        """
        source, exhausted = iter(edits), False
        self._room = min(self.limits.in_flight, self.flight.places or self.limits.in_flight)
        self.flight.listen(self.watch)
        try:
            self._heed_wish()  # somebody may have changed his mind while the farm started
            while True:
                if self.stopped is None:
                    before = self.clock()
                    exhausted = exhausted or self._draw(source)
                    self._stood_still(self.clock() - before)
                    self._start()
                if not self._running and (self.stopped or (exhausted and not self._waiting)):
                    return
                ended = self.flight.finished(_TICK)
                if not self._running:
                    self.sleep(_TICK)  # paused, or waiting for the machine or for a retry
                for name, outcome in ended:
                    edit = self._running.pop(name)
                    self._making -= Counter((edit.first,))
                    last = self._settle(name, edit, outcome)
                    if last is not None:
                        seconds = self.clock() - (edit.started or 0.0)
                        tries = edit.tries.total + isinstance(last, EditResult)
                        before = self.clock()
                        yield Ended(name, last, seconds, tries)
                        self._stood_still(self.clock() - before)
                self._look()
        finally:
            self.flight.close()

    def _stood_still(self, seconds: float) -> None:
        """Nobody listened meanwhile, so whoever runs may have gone on, or ended."""
        for edit in self._running.values():
            edit.seen_at += seconds

    def _draw(self, source: Iterator[tuple[str, PreparedEdit]]) -> bool:
        """Fill the waiting room until enough of it can start; whether the source is exhausted."""
        if self._wished is not Wish.run or self._ill_since is not None:
            return False
        free = self._room - len(self._running)
        ready = [edit.first for _, edit in self._waiting if self._can_start(edit)]
        alone = {first for first in ready if first not in self._made}
        shared = sum(first in self._made for first in ready)
        while len(alone) + shared < free and len(self._waiting) < _WAITING_PER_PLACE * self._room:
            try:
                name, prepared = next(source)
            except StopIteration:
                return True
            edit = _Edit(prepared)
            self._waiting.append((name, edit))
            if edit.first in self._made:
                shared += 1
            elif not self._making[edit.first]:
                alone.add(edit.first)
        return False

    def _can_start(self, edit: _Edit) -> bool:
        """Whether its time has come and no running edit makes the stage that it needs first."""
        is_free = edit.first in self._made or not self._making[edit.first]
        return is_free and edit.not_before <= self.clock()

    def _start(self) -> None:
        if self._wished is not Wish.run or self._ill_since is not None:
            return
        kept: list[tuple[str, _Edit]] = []
        while self._waiting and len(self._running) < self._room:
            name, edit = self._waiting.popleft()
            if not self._can_start(edit):
                kept.append((name, edit))
                continue
            edit.seen_at = self.clock()
            edit.started = edit.seen_at if edit.started is None else edit.started
            edit.seen, edit.stopping_since = None, None
            edit.hung = edit.excused = edit.forced = False
            self._running[name] = edit
            self._making[edit.first] += 1
            self.flight.start(name, edit.prepared)
            self.note("started", {"edit": name, "try": edit.tries.total + 1})
        self._waiting.extendleft(reversed(kept))

    def _settle(self, name: str, edit: _Edit, outcome: Outcome) -> Outcome | None:
        """The edit's last outcome, or None when it is tried again or left."""
        if isinstance(outcome, EditResult):
            self._went_well(edit, outcome)
            return outcome
        self.spent += edit.spent
        if self.stopped is not None:
            return None
        # one that was ended by force may look as if its machine had failed
        if edit.hung and (edit.forced or not isinstance(outcome, UnavailableError)):
            outcome = EditHungError(
                f"no progress for {self.limits.hang_seconds:g} s during {_where(edit)}: stopped; "
                "see the trainer's log, or allow more with --hang-seconds"
            )
        kind = classify(outcome)
        if self._is_nobodys(edit, kind):
            self._fall_ill(name, outcome)
            self._waiting.appendleft((name, edit))
            return None
        pause = edit.tries.next_pause(kind)
        if pause is None:
            return _after(outcome, edit.tries)
        if POLICY[kind].fewer_beside:
            self._room, self._good = max(1, self._room // 2), 0
        edit.not_before = self.clock() + pause
        self._waiting.appendleft((name, edit))
        about = {"edit": name, "kind": kind.value, "error": outcome.message, "pause": pause}
        self.note("retried", about | {"room": self._room})
        return None

    def _is_nobodys(self, edit: _Edit, kind: FailureKind) -> bool:
        """Whether it failed because the machine is ill, so that it does not count."""
        if kind is FailureKind.hung:
            nobodys = edit.excused
        else:
            nobodys = kind is FailureKind.transient and self._is_ill()
        if nobodys and edit.hung:
            edit.excuses += 1
            return edit.excuses <= _MOST_EXCUSES  # the machine is well again without it, each time
        return nobodys

    def _went_well(self, edit: _Edit, result: EditResult) -> None:
        self.spent += 0.0 if result.reused else result.provenance.accelerator_seconds
        for digest in edit.prepared.stages.values():
            self._made[digest] = None
        while len(self._made) > _KNOWN_STAGES:
            self._made.popitem(last=False)
        self._good += 1
        if self._good % _GROWS_AFTER == 0:
            most = min(self.limits.in_flight, self.flight.places or self.limits.in_flight)
            self._room = min(self._room + 1, most)

    def _look(self) -> None:
        """Once a tick: tell, listen, and end what must end."""
        messages = self.flight.messages()
        for name, edit in self._running.items():
            message = messages.get(name)
            if message is not None and message != edit.seen:
                edit.seen, edit.seen_at = message, self.clock()
        self.watch(messages)
        self._end_hung()
        self._heed_wish()
        self._heed_budget()
        self._heed_no_room()
        self._recover()

    def _heed_wish(self) -> None:
        wish = self.wish()
        if wish is not self._wished:
            self._wished = wish
            self.note("wish", {"wish": wish.value})
        if wish is Wish.cancel:
            self._stop(Stopped.cancelled)

    def _heed_budget(self) -> None:
        most = self.limits.accelerator_seconds
        if most is None:
            return
        spent = self.spent + sum(edit.spent for edit in self._running.values())
        if spent >= most:
            self._stop(Stopped.budget)

    def _heed_no_room(self) -> None:
        """A cluster that begins nothing of what it was given is as one that does not answer."""
        if not self._running or any(edit.seen is not None for edit in self._running.values()):
            if self._cramped_since is not None:
                self.note("recovered", {"seconds": self.clock() - self._cramped_since})
                self._cramped_since = None
            return
        name, latest = max(
            ((name, edit.seen_at) for name, edit in self._running.items()), key=lambda one: one[1]
        )
        if self._cramped_since is None and self.clock() - latest > _ROOM_SECONDS:
            self._cramped_since = latest
            self.note("waiting", {"edit": name, "error": _NO_ROOM})
        if self.clock() - latest > self.limits.patience:
            self._stop(Stopped.infrastructure)

    def _stop(self, reason: Stopped) -> None:
        """Let nothing more start, and end what runs: checkpoints stay, the next run goes on."""
        if self.stopped is None:
            self.stopped = reason
            self._waiting.clear()
            self.note("stopping", {"reason": reason.value})
        for name, edit in self._running.items():
            self._end(name, edit)

    def _end(self, name: str, edit: _Edit) -> None:
        """Ask an edit to stop, and end its process if it does not."""
        now = self.clock()
        if edit.stopping_since is None:
            edit.stopping_since = now
            self.flight.stop(name, force=False)
        elif now - edit.stopping_since > _STOP_PATIENCE and not edit.forced:
            edit.forced = True
            self.flight.stop(name, force=True)

    def _end_hung(self) -> None:
        # whoever has not begun waits for room, which is no fault of its own
        begun = {name: edit for name, edit in self._running.items() if edit.seen is not None}
        silent = {name: edit for name, edit in begun.items() if self._is_silent(edit)}
        for name in [n for n, e in silent.items() if not (e.hung or self.flight.is_placed(n))]:
            begun.pop(name)  # its machine is lost: it waits for room again
            silent.pop(name).seen_at = self.clock()
        newly = [name for name, edit in silent.items() if not edit.hung]
        # asked before the backbones are restarted: that makes nobody ill
        is_ill = bool(newly) and self._is_ill()
        for name in newly:
            edit = silent[name]
            edit.hung, edit.excused = True, is_ill
            self.note("hung", {"edit": name, "during": _where(edit)})
        for name, edit in silent.items():
            self._end(name, edit)
        if newly and len(silent) == len(begun):  # then it is hardly the edits
            self.note("restarted backbones", {"silent": len(silent)})
            self.flight.restart_backbones()

    def _is_silent(self, edit: _Edit) -> bool:
        limit = self.limits.hang_seconds * (1 if edit.has_step else SLOW_START)
        return self.clock() - edit.seen_at > limit

    def _is_ill(self) -> bool:
        return self._ill_since is not None or not self._is_well()

    def _is_well(self) -> bool:
        return self.is_store_well() and self.flight.is_healthy()

    def _fall_ill(self, name: str, error: FarmError) -> None:
        if self._ill_since is None:
            self._ill_since = self.clock()
            self._probe_pause = 1.0
            self._next_probe = self.clock() + self._probe_pause
            self.note("waiting", {"edit": name, "error": error.message})

    def _recover(self) -> None:
        """Ask an ill machine again, ever more seldom; give up when patience ends."""
        if self._ill_since is None or self.clock() < self._next_probe:
            return
        if self._is_well():
            self.note("recovered", {"seconds": self.clock() - self._ill_since})
            self._ill_since = None
        elif self.clock() - self._ill_since > self.limits.patience:
            self._stop(Stopped.infrastructure)
        else:
            self._probe_pause = min(2 * self._probe_pause, _LONGEST_PROBE_PAUSE)
            self._next_probe = self.clock() + self._probe_pause


def _where(edit: _Edit) -> str:
    if edit.seen is None or not edit.has_step:
        return "its start"
    return f"{edit.seen['stage']}, step {edit.seen['step']} of {edit.seen['total']}"


def _after(error: FarmError, tries: Tries) -> FarmError:
    """The same error, saying how often it was tried."""
    if tries.total <= 1:
        return error
    return type(error)(f"{error.message} (the last of {tries.total} tries)")
