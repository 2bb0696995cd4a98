"""A job of a hundred thousand rows whose edits cost nothing: what the driver itself takes.

    python -m benchmarks.manifest_scale --json out/bench/manifest_scale.json

The method is a no-op: an edit is committed with one small file, in this process. So what is
measured is reading, checking, bookkeeping, the logs and the outcomes, with real rows, real pictures
and a real store. Three rounds: 1 000 rows, `--rows` rows, and the same again with one row in a
hundred missing, all of these at the end, where they are found last. Some minutes.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from farm.calls import Executor
from farm.errors import EditFailedError, FarmError
from farm.images import encode_png
from farm.results import EditResult, Provenance
from farm.runner import PreparedEdit, versions
from farm.runner.loading import result_of
from farm.storage.commits import commit
from farm.storage.layout import commit_key, edit_prefix
from farm.storage.local import LocalStore
from farm.storage.store import Store
from jobs.batch import Batch
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file
from jobs.dispatch import Limits, Messages, Watch
from jobs.job import JobOptions, run_job
from jobs.records import TENANT
from jobs.showing import QuietView
from jobs.submission import Submission, open_batch

app = command_app()

_FEW = 1_000
_PICTURES = 100
_MISSING = 100  # one row in so many


class NoOp:
    """Commits every edit that it is given; notes when the first was started."""

    places = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.first_start: float | None = None
        self.edits = 0
        self._ready: list[tuple[str, PreparedEdit]] = []

    def run(self, *_: Any, **__: Any) -> Any:
        raise EditFailedError("the benchmark runs a job, not single edits")

    def flight(self, *, budget: float | None, hang_seconds: float) -> "NoOp":
        del budget, hang_seconds
        return self

    def describe(self) -> list[dict[str, Any]]:
        return []

    def executor(self) -> Executor:
        raise EditFailedError("there are no networks here")

    def listen(self, watch: Watch) -> None:
        del watch

    def start(self, name: str, request: PreparedEdit) -> None:
        if self.first_start is None:
            self.first_start = time.monotonic()
        self._ready.append((name, request))

    def finished(self, timeout: float) -> list[tuple[str, EditResult | FarmError]]:
        del timeout
        ready, self._ready = self._ready, []
        self.edits += len(ready)
        return [(name, self._commit(edit)) for name, edit in ready]

    def messages(self) -> Messages:
        return {}

    def stop(self, name: str, *, force: bool) -> None:
        del name, force

    def is_healthy(self) -> bool:
        return True

    def restart_backbones(self) -> None:
        pass

    def load(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._ready.clear()

    def _commit(self, edit: PreparedEdit) -> EditResult:
        target = edit_prefix(TENANT, edit.edit_id)
        extra = {"provenance": _provenance(edit).model_dump(mode="json")}
        record = commit(self.store, target, uuid.uuid4().hex, {"edited.png": b"no-op"}, extra)
        return result_of(edit.edit_id, target, record, reused=not record.won)


def _provenance(edit: PreparedEdit) -> Provenance:
    """As long as a real one's."""
    method = edit.method
    return Provenance(
        method=edit.request.method,
        method_version=method.version,
        model_set=edit.model_set.name,
        weights=edit.model_set.digests_of(method.parts),
        seed=edit.request.seed,
        config=method.config.model_dump(mode="json"),
        versions=versions(),
        image_digest=edit.image_digest,
        stages=dict(edit.stages),
        stages_made=list(edit.stages),
        trainer_pid=os.getpid(),
        backbone_pids=[os.getpid()],
        work={"unet_forward": 100, "unet_backward": 50},
        accelerator_seconds=0.0,
        seconds=0.0,
        stage_seconds={},
    )


def write_manifest(folder: Path, rows: int) -> Path:
    """Rows of some pictures with many seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    for number in range(_PICTURES):
        picture = encode_png(torch.rand(3, 64, 64, generator=generator))
        (folder / f"{number}.png").write_bytes(picture)
    path = folder / f"{rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(rows):
            line = {
                "id": f"edit-{row}",
                "image": f"{row % _PICTURES}.png",
                "source_prompt": "a photo of a striped red ring on the sand",
                "target_prompt": "a photo of a striped blue ring on the sand",
                "target_word": "blue",
                "seed": row,
            }
            file.write(json.dumps(line) + "\n")
    return path


def run_round(manifest: Path, store: LocalStore) -> dict[str, float]:
    """One job in this process; its figures."""
    noop = NoOp(store)
    started = time.monotonic()

    @contextmanager
    def open_runner() -> Generator[Any, None, None]:
        yield noop

    with open_batch(Submission(str(manifest), str(store.root))) as opened:
        batch = Batch(opened.manifest, opened.model_set, store, TENANT, opened.job, opened.reading)
        options = JobOptions(limits=Limits(in_flight=64), report=False)
        totals = run_job(batch, open_runner, options, QuietView())
    if totals.failed or totals.left:
        raise EditFailedError(f"{totals.failed} rows failed, {totals.left} are left")
    ended = time.monotonic()
    return {
        "seconds": round(ended - started, 2),
        "before_first_edit": round((noop.first_start or ended) - started, 2),
        "edits": noop.edits,
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _in_process(manifest: Path, store: LocalStore) -> dict[str, float]:
    """`run_round` in a process of its own, whose peak of memory is then the round's."""
    command = [sys.executable, "-m", "benchmarks.manifest_scale", "--round", str(manifest)]
    done = subprocess.run(
        [*command, "--store", str(store.root)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def remove_last(manifest: Path, store: LocalStore, number: int) -> None:
    """Delete the commits of a manifest's last edits."""
    with open_batch(Submission(str(manifest), str(store.root))) as batch:
        lines = [line for line in batch.lines() if hasattr(line, "request")]
        for line in lines[-number:]:
            target = edit_prefix(TENANT, batch.prepared(line).edit_id)
            for key in [commit_key(target), *store.list(f"{target}/")]:
                store.delete(key)


@app.command(cls=FarmCommand)
def manifest_scale(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    rows: Annotated[int, typer.Option(min=2 * _MISSING)] = 100_000,
    folder: Annotated[Path | None, typer.Option(help="Where to work; emptied afterwards.")] = None,
    round_of: Annotated[Path | None, typer.Option("--round", hidden=True)] = None,
    store: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure what rows cost the driver."""
    if round_of is not None and store is not None:
        print_json(run_round(round_of, LocalStore(store)))
        return
    if json_file is not None:
        check_file(json_file)
    place = Path(tempfile.mkdtemp(prefix="manifest-scale-", dir=folder))
    try:
        figures = _measure(place, rows)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


def _measure(place: Path, rows: int) -> dict[str, float | int]:
    few = _in_process(write_manifest(place / "rows", _FEW), LocalStore(place / "few"))
    say(f"{_FEW} rows: {few}")
    manifest, store = write_manifest(place / "rows", rows), LocalStore(place / "many")
    many = _in_process(manifest, store)
    say(f"{rows} rows: {many}")
    remove_last(manifest, store, rows // _MISSING)
    again = _in_process(manifest, store)
    say(f"with one in {_MISSING} missing: {again}")
    if again["edits"] != rows // _MISSING:
        raise EditFailedError(f"{again['edits']} edits were run again, not {rows // _MISSING}")
    return {
        "rows": rows,
        "driver_growth_mb": round(many["megabytes"] - few["megabytes"], 1),
        "driver_mb": many["megabytes"],
        "rows_per_second": round(rows / many["seconds"], 1),
        "seconds": many["seconds"],
        "resume_before_first_edit": again["before_first_edit"],
        "resume_seconds": again["seconds"],
        "resume_driver_mb": again["megabytes"],
        "resumed_edits": again["edits"],
        "cores": os.cpu_count() or 1,
    }


if __name__ == "__main__":
    app()
