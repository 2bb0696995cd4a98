"""One attempt at one edit: stages found, waited for or made; the edit; one commit."""

import json
import os
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from farm.calls import Executor, Meter
from farm.errors import BudgetExceededError, EditCancelledError, StoreError
from farm.images import decode_image, encode_png, fit_to_model
from farm.progress import Progress
from farm.results import EditResult, Provenance
from farm.runner.loading import load_output, load_stage, result_of
from farm.runner.method import Files, NestedEdit, Outputs, PreparedEdit, StagePlan, Workbench
from farm.runner.preparing import stage_digests
from farm.runner.safety import shown_to_checker
from farm.runner.versions import versions
from farm.storage.checkpoints import load_checkpoint, save_checkpoint
from farm.storage.commits import commit, read_commit
from farm.storage.layout import edit_prefix, input_key, stage_prefix
from farm.storage.leases import Lease, renewing
from farm.storage.stages import wait_or_compute
from farm.storage.store import Store
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.threads import one_thread

_LEASE_SECONDS = 20.0
SILENT_SECONDS = 600.0
"""Seconds without a step after which a stage is left to others: as long as a job waits for one."""
SLOW_START = 3
"""Times as long before the first step: a backbone may have to be loaded first."""
_CHECKPOINT_SECONDS = 10.0
_POLL_SECONDS = 0.5
_QUIET_LOOKS = 2  # the first two looks at a stage are over at once where nobody makes it
_T = TypeVar("_T")

Report = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def run_edit(
    prepared: PreparedEdit,
    store: Store,
    executor: Executor,
    *,
    tenant: str = "default",
    report: Report = lambda _: None,
    should_stop: ShouldStop = lambda: False,
    budget: float | None = None,
    silent_seconds: float = SILENT_SECONDS,
    node: str = "",
    task: str = "",
) -> EditResult:
    """Do a prepared edit, or find it done.

    Each stage is taken from the store if there, waited for if somebody makes it now, made and
    committed otherwise; an interrupted one goes on from its checkpoint. The edit is committed once,
    whoever else tries the same.

    Args:
        prepared: what to do.
        store: the only truth; everything is written under the tenant's prefix.
        executor: the frozen networks.
        tenant: whose store.
        report: called with every step.
        should_stop: asked between steps.
        budget: accelerator seconds that this attempt may cost; no limit if None.
        silent_seconds: without a step, after which whoever needs the same stage takes it over.
        node: the machine, for provenance.
        task: the same for a run in place of one that died, which takes over its leases at once.

    Raises:
        EditCancelledError: `should_stop` said so.
        BudgetExceededError: it has cost more than `budget`.
        FarmError: as its kind says.
    """
    target = edit_prefix(tenant, prepared.edit_id)
    done = read_commit(store, target)
    if done is not None:
        return result_of(prepared.edit_id, target, done, reused=True)
    run = _Run(prepared, store, executor, tenant, report, should_stop)
    run.budget, run.silent_seconds, run.node = budget, silent_seconds, node
    run.task = task or run.attempt
    with one_thread(when=prepared.request.deterministic):
        return run.run(target)


class _Run:
    """One attempt at one edit."""

    def __init__(
        self,
        prepared: PreparedEdit,
        store: Store,
        executor: Executor,
        tenant: str,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self.prepared, self.store, self.tenant = prepared, store, tenant
        self.report, self.should_stop = report, should_stop
        self.budget: float | None = None
        self.silent_seconds = SILENT_SECONDS
        self.has_step = False
        self.node = ""
        self.task = ""
        self.meter = Meter(executor)
        self.attempt = uuid.uuid4().hex
        self.started = self.heard = time.monotonic()
        self.stage_seconds: dict[str, float] = {}
        self.stage_costs: dict[str, float] = {}
        self.made: list[str] = []
        self.found: dict[str, str] = {}
        original = decode_image(prepared.image)
        spec = prepared.model_set.spec
        square, placement = fit_to_model(original.image, spec.image_size)
        self.bench = Workbench(
            prepared.request,
            prepared.model_set,
            self.meter,
            original,
            square,
            placement,
            self._is_made,
            self._nested,
        )

    def run(self, target: str) -> EditResult:
        prepared = self.prepared
        self.store.put_if_absent(input_key(self.tenant, prepared.image_digest), prepared.image)
        for stage in prepared.method.stages:
            self._ensure(stage)
        outputs = self._drive("editing", prepared.method.edit(self.bench, self._read))
        outputs, verdict = shown_to_checker(outputs, self.meter, prepared.model_set.spec)
        provenance = self._provenance(verdict)
        files = self._files(outputs, provenance)
        extra = {"provenance": provenance.model_dump(mode="json")}
        done = commit(self.store, target, self.attempt, files, extra)
        return result_of(prepared.edit_id, target, done, reused=not done.won)

    def _ensure(self, stage: StagePlan) -> None:
        """See that a stage is in the store, whoever puts it there."""
        waited, looks = time.monotonic(), 0

        def stop_or_say_that_we_wait() -> bool:
            """A sign of life at each look, so that nobody takes who waits for one that hangs."""
            nonlocal looks
            looks += 1
            if looks > _QUIET_LOOKS:
                self._report(Progress("waiting", 0, 0, detail={"looks": looks}))
            return self.should_stop()

        _, computed = wait_or_compute(
            self.store,
            stage_prefix(self.tenant, self.prepared.stages[stage.name]),
            f"{self.task}/{self.attempt}",
            lambda lease: self._make(stage, lease),
            ttl=_LEASE_SECONDS,
            poll=_POLL_SECONDS,
            should_stop=stop_or_say_that_we_wait,
        )
        if computed:
            self.made.append(stage.name)
        else:
            spent = self.stage_seconds.get("wait", 0.0)
            self.stage_seconds["wait"] = spent + time.monotonic() - waited

    def _is_made(self, stages: Sequence[StagePlan]) -> bool:
        digest = list(stage_digests(self.prepared.root, stages).values())[-1]
        return read_commit(self.store, stage_prefix(self.tenant, digest)) is not None

    def _nested(self, prepared: PreparedEdit, name: str) -> NestedEdit:
        """An edit of its own, which others find too; here it counts as part of this one."""
        left = None if self.budget is None else max(0.0, self.budget - self.meter.seconds)
        result = run_edit(
            prepared,
            self.store,
            self.meter,
            tenant=self.tenant,
            report=self._report,
            should_stop=self.should_stop,
            budget=left,
            node=self.node,
            task=self.task,
        )
        provenance = result.provenance
        self.found |= {f"{name}.{stage}": d for stage, d in provenance.stages.items()}
        if not result.reused:
            self.made += [f"{name}.{stage}" for stage in provenance.stages_made]
            for stage, seconds in provenance.stage_accelerator_seconds.items():
                self.stage_costs[f"{name}.{stage}"] = seconds
        return NestedEdit(result, partial(load_output, self.store, result))

    def _read(self, stage: str) -> Files:
        return load_stage(self.store, self.tenant, self.prepared.stages[stage])

    def _make(self, stage: StagePlan, lease: Lease) -> Files:
        """The stage's files; keeps the lease alive and a checkpoint in the store meanwhile."""
        prefix = stage_prefix(self.tenant, self.prepared.stages[stage.name])
        self.heard = time.monotonic()
        with renewing(lease, self._is_alive) as renewal:
            stored = load_checkpoint(self.store, prefix)
            checkpoint = None if stored is None else unpack_tensors(stored)[0]
            saved = time.monotonic()

            def keep(progress: Progress) -> None:
                nonlocal saved
                due = renewal.is_lost or time.monotonic() - saved >= _CHECKPOINT_SECONDS
                if progress.checkpoint is not None and due:  # first of all: whoever goes on has it
                    data = pack_tensors(progress.checkpoint.to_tensors(), {})
                    with _surviving_an_outage():
                        save_checkpoint(self.store, prefix, data, lease)
                    saved = time.monotonic()
                renewal.check()

            steps = self.prepared.method.make(stage.name, self.bench, self._read, checkpoint)
            return self._drive(stage.name, steps, keep)

    def _is_alive(self) -> bool:
        """Whether there was a step not too long ago; asked by the thread that keeps the lease."""
        limit = self.silent_seconds * (1 if self.has_step else SLOW_START)
        return time.monotonic() - self.heard < limit

    def _drive(
        self,
        stage: str,
        steps: Generator[Progress, None, _T],
        each: Callable[[Progress], None] = lambda _: None,
    ) -> _T:
        """Run a stage to its end: report each step, stop where asked, time it."""
        started, cost = time.monotonic(), self.meter.seconds
        while True:
            if self.should_stop():
                raise EditCancelledError(
                    f"edit {self.prepared.edit_id} was cancelled during {stage}"
                )
            if self.budget is not None and self.meter.seconds > self.budget:
                raise BudgetExceededError(
                    f"edit {self.prepared.edit_id} has cost {self.meter.seconds:.1f} accelerator "
                    f"seconds by {stage}, and may cost {self.budget:g}: allow more, or fewer steps"
                )
            try:
                progress = next(steps)
            except StopIteration as finished:
                self.stage_seconds[stage] = time.monotonic() - started
                self.stage_costs[stage] = self.meter.seconds - cost
                return finished.value
            self._report(progress)
            each(progress)

    def _report(self, progress: Progress) -> None:
        """Tell of a step, with what the edit has cost so far."""
        self.heard, self.has_step = time.monotonic(), True
        detail = {**progress.detail, "accelerator_seconds": self.meter.seconds}
        self.report(replace(progress, detail=detail))

    def _files(self, outputs: Outputs, provenance: Provenance) -> dict[str, bytes]:
        """What is committed: pictures at the original's resolution, figures beside them."""
        text = {
            "editfarm:edit": self.prepared.edit_id,
            "editfarm:target_prompt": self.prepared.request.target_prompt,
            "editfarm:seed": str(self.prepared.request.seed),
        }
        alpha = self.bench.original.alpha
        files = {"edited.png": encode_png(outputs.edited, text=text, alpha=alpha)}
        for name, picture in outputs.pictures.items():
            files[f"{name}.png"] = encode_png(picture)
        files |= outputs.files
        figures = {**outputs.figures, "provenance": provenance.model_dump(mode="json")}
        files["metrics.json"] = json.dumps(figures, indent=1).encode()
        return files

    def _provenance(self, verdict: Mapping[str, bool] | None) -> Provenance:
        prepared = self.prepared
        method = prepared.method
        return Provenance(
            method=prepared.request.method,
            method_version=method.version,
            model_set=prepared.model_set.name,
            weights=prepared.model_set.digests_of(method.parts),
            seed=prepared.request.seed,
            config=method.config.model_dump(mode="json"),
            versions=versions(),
            image_digest=prepared.image_digest,
            stages={**prepared.stages, **self.found},
            stages_made=self.made,
            trainer_pid=os.getpid(),
            trainer_node=self.node,
            backbone_pids=sorted(self.meter.pids),
            work=dict(sorted(self.meter.work.items())),
            accelerator_seconds=self.meter.seconds,
            seconds=time.monotonic() - self.started,
            stage_seconds=self.stage_seconds,
            stage_accelerator_seconds=self.stage_costs,
            safety=None if verdict is None else dict(verdict),
        )


@contextmanager
def _surviving_an_outage() -> Generator[None, None, None]:
    """A checkpoint that is not written costs time at worst."""
    try:
        yield
    except StoreError as error:
        if not error.retryable:
            raise
