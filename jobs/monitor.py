"""A job's figures while it runs, for the person at the terminal and for every other process.

`status.json` says how far the job is, the event log what happened, the outcome log what became of
each edit. None of them is needed to finish the job: a store that fails is asked again later.
"""

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from farm.errors import FarmError, StoreError
from farm.storage.patient import PatientStore
from jobs.dispatch import Messages, Wish
from jobs.outcomes import DoneEdit, FailedEdit
from jobs.records import EVENT_LOG, OUTCOME_LOG, STATUS, JobFiles, JobStatus, RunningEdit, State
from jobs.segments import SegmentLog

_STATUS_SECONDS = 3.0
_PROGRESS_SECONDS = 10.0
_WISH_SECONDS = 2.0
_RECENT = 256  # finished edits from which the speed is taken
_SHOWN_RUNNING = 64


@dataclass(frozen=True)
class Figures:
    """How a job goes.

    Attributes:
        done: new edits.
        failed: edits that failed in this run.
        left: edits that are still to come to their end.
        edits_per_minute: of late; None before the first has ended.
        eta_seconds: until the last, at that speed.
        busy_share: of the time since the farm stood, for which a backbone computed.
        mean_batch: calls per batch of the backbones.
    """

    done: int = 0
    failed: int = 0
    left: int = 0
    edits_per_minute: float | None = None
    eta_seconds: float | None = None
    busy_share: float | None = None
    mean_batch: float | None = None


@dataclass
class Monitor:
    """Keeps count of one run, and writes what others read.

    Attributes:
        files: of the job.
        run: name of this run; later ones are greater.
        clock: Unix time.
    """

    files: JobFiles
    run: str
    clock: Callable[[], float] = time.time
    state: State = "checking"
    reason: str = ""
    total: int = 0
    reused: int = 0
    done: int = 0
    failed: int = 0
    missing: int = 0
    replicas: int = 1
    accelerator_seconds: float = 0.0
    messages: Messages = field(default_factory=dict[str, Mapping[str, Any]])
    _ends: deque[float] = field(default_factory=lambda: deque[float](maxlen=_RECENT))
    _ended: int = 0
    _ended_well: int = 0
    _run_since: float | None = None
    _load: Mapping[str, float] = field(default_factory=dict[str, float])
    _work: dict[str, float] = field(default_factory=dict[str, float])
    _status_at: float = 0.0
    _progress_at: float = 0.0
    _wish_at: float = 0.0
    _wish: Wish = Wish.run

    def __post_init__(self) -> None:
        store = self.files.store
        self.started = self.clock()
        self._events = SegmentLog(store, self.files.key(EVENT_LOG + self.run), every=3.0)
        self._outcomes = SegmentLog(store, self.files.key(OUTCOME_LOG + self.run))

    def event(self, kind: str, about: Mapping[str, Any] | None = None) -> None:
        """Something happened."""
        now = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds")
        record = {"time": now, "run": self.run, "kind": kind, **(about or {})}
        self._events.add(json.dumps(record, ensure_ascii=False).encode())
        if kind == "waiting":
            self.state, self.reason = "waiting", str((about or {}).get("error", ""))
        elif kind == "recovered":
            self.state, self.reason = "running", ""

    def settled(self, outcome: DoneEdit | FailedEdit, *, is_new: bool) -> None:
        """An outcome of the first pass, and whether no earlier run of the job had left it."""
        if is_new and outcome.row:
            self._outcomes.add(outcome.model_dump_json().encode())
        self.reused += isinstance(outcome, DoneEdit)
        self.failed += isinstance(outcome, FailedEdit)

    def begin(self, missing: int, total: int) -> None:
        """The first pass is over."""
        self.missing, self.total, self.state = missing, total, "running"
        self.event("checked", {"total": total, "missing": missing, "failed": self.failed})
        self.tick(force=True)

    @contextmanager
    def starting(self) -> Generator[None]:
        """While the farm starts, and its caller waits for that, say that the job is alive."""
        self.state, over = "starting", threading.Event()

        def beat() -> None:
            self.tick(force=True)
            while not over.wait(_STATUS_SECONDS):
                self.tick(force=True)

        thread = threading.Thread(target=beat, name="job-status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.state = "running"

    def ended(self, outcome: DoneEdit | FailedEdit) -> None:
        """An edit of this run has its last outcome."""
        self._ends.append(self.clock())
        self._ended += 1
        about: dict[str, Any] = {"edit": outcome.name, "line": outcome.line}
        about |= {"seconds": round(outcome.seconds, 3), "tries": outcome.tries}
        if isinstance(outcome, DoneEdit):
            self.done += 1
            self._ended_well += 1
            cost = 0.0 if outcome.result.reused else outcome.result.provenance.accelerator_seconds
            self.accelerator_seconds += cost
            about |= {"edit_id": outcome.result.edit_id, "accelerator_seconds": round(cost, 3)}
            self.event("done", about)
        else:
            self.failed += 1
            self.event("failed", about | {"error": outcome.kind, "message": outcome.message})
        if outcome.row:
            self._outcomes.add(outcome.model_dump_json().encode())

    def watch(self, messages: Messages, load: Mapping[str, float]) -> None:
        """The latest steps, and what the backbones have done so far."""
        self.messages = messages
        self._add_load(load)
        now = self.clock()
        if messages and now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            edits = [edit.model_dump() for edit in self._running()]
            self.event("progress", {"edits": edits, "running": len(messages)})

    def wish(self) -> Wish:
        """What somebody wants, as the store said a moment ago."""
        now = self.clock()
        if now - self._wish_at >= _WISH_SECONDS:
            self._wish_at = now
            with suppress(FarmError):  # also where somebody else's control.json is none
                self._wish = self.files.wish()
            if self.state in {"running", "paused"}:
                self.state = "paused" if self._wish is Wish.pause else "running"
        return self._wish

    def tick(self, *, force: bool = False) -> None:
        """Write what is due."""
        self._events.flush_if_due()
        self._outcomes.flush_if_due()
        now = self.clock()
        if force or now - self._status_at >= _STATUS_SECONDS:
            self._status_at = now
            with suppress(StoreError):
                self.files.write(STATUS, self.status())

    def close(self, state: State, reason: str = "", *, patience: float = 60.0) -> None:
        """Write the rest.

        Args:
            state: in which the job ends.
            reason: why it stopped.
            patience: seconds for a store that fails.

        Raises:
            StoreError: the store failed.
        """
        self.state, self.reason, self.messages = state, reason, {}
        self.event(state, {"reason": reason} if reason else None)
        store = PatientStore(self.files.store, patience=patience)
        self._outcomes.store = self._events.store = store
        self._outcomes.flush()
        self._events.flush()
        replace(self.files, store=store).write(STATUS, self.status())

    def figures(self) -> Figures:
        """How it goes."""
        left = self.missing - self._ended
        speed = self._speed()
        busy, items, batches = (
            self._work.get(name, 0.0) for name in ("busy_seconds", "items", "batches")
        )
        since = 0.0 if self._run_since is None else self.clock() - self._run_since
        return Figures(
            done=self._ended_well,
            failed=self._ended - self._ended_well,
            left=left,
            edits_per_minute=None if speed is None else 60 * speed,
            eta_seconds=left / speed if speed else None,
            busy_share=min(1.0, busy / (since * self.replicas)) if since > 1 else None,
            mean_batch=items / batches if batches else None,
        )

    def status(self) -> JobStatus:
        """How far it is."""
        figures = self.figures()
        return JobStatus(
            job=self.files.job,
            run=self.run,
            state=self.state,
            reason=self.reason,
            total=self.total,
            done=self.done + self.reused,
            reused=self.reused,
            failed=self.failed,
            left=figures.left,
            running=self._running(),
            edits_per_minute=_rounded(figures.edits_per_minute),
            eta_seconds=_rounded(figures.eta_seconds),
            busy_share=_rounded(figures.busy_share),
            mean_batch=_rounded(figures.mean_batch),
            accelerator_seconds=round(self.accelerator_seconds, 3),
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self.started,
            updated=self.clock(),
        )

    def _running(self) -> list[RunningEdit]:
        shown = sorted(self.messages.items())[:_SHOWN_RUNNING]
        return [
            RunningEdit(
                name=name, stage=message["stage"], step=message["step"], total=message["total"]
            )
            for name, message in shown
        ]

    def _speed(self) -> float | None:
        """Edits a second, over the latest of them."""
        if self._run_since is None or not self._ends:
            return None
        first = self._run_since if self._ended <= len(self._ends) else self._ends[0]
        return len(self._ends) / max(self.clock() - first, 1e-3)

    def _add_load(self, load: Mapping[str, float]) -> None:
        if self._run_since is None:
            self._run_since = self.clock()
        for name, value in load.items():
            grown = value - self._load.get(name, 0.0)  # less where a backbone was started anew
            self._work[name] = self._work.get(name, 0.0) + max(0.0, grown)
        self._load = dict(load)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
