"""Real edits of the scenes set, and trainer entries that watch one or kill in the middle of it.

Trainers import this file: nothing here may load a library of networks, or boto3.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.edits import StoredEdit
from farm.calls import Executor
from farm.images import encode_png
from farm.progress import Progress
from farm.requests import parse_request
from farm.results import EditResult
from farm.runner import PreparedEdit, Report, ShouldStop, load_output, prepare
from farm.storage.store import Store
from farm.zoo.model_sets import ModelSet
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.requests import request_fields

QUICK = {"num_steps": 4, "inner_steps": 3}
PICTURES = ("edited.png", "reconstruction.png", "attention.png", "mask.png")


def prepared_edits(
    models: ModelSet,
    colours: Sequence[str],
    *,
    images: int = 1,
    parameters: Mapping[str, Any] = QUICK,
    deterministic: bool = True,
) -> list[PreparedEdit]:
    """Some scenes, an object of each to become each of the colours; images in the outer loop."""
    found: list[PreparedEdit] = []
    drawn = sample_edits(4 * images, 5, ("colour",))
    others = [edit for edit in drawn if not set(colours) & set(edit.source_prompt.split())]
    for number, edit in enumerate(others[:images]):
        picture = encode_png(edit_truth(edit).source.images[0])
        for colour in colours:
            name = f"{number}-{colour}"
            target = edit.target_prompt.replace(edit.target_word, colour)
            fields = request_fields(edit, name, "scene.png") | {
                "target_prompt": target,
                "target_word": colour,
                "deterministic": deterministic,
                "parameters": dict(parameters),
            }
            found.append(prepare(parse_request(fields), picture, models))
    return found


def pictures_of(store: Store, result: EditResult) -> dict[str, bytes]:
    """All that an edit shows."""
    return {name: load_output(store, result, name) for name in PICTURES}


@dataclass(frozen=True)
class WithModules:
    """Runs an edit; answers with it and the top-level modules that its trainer has loaded."""

    edit: StoredEdit

    def __call__(
        self,
        request: PreparedEdit,
        executor: Executor,
        report_progress: Report,
        should_stop: ShouldStop,
    ) -> tuple[EditResult, set[str]]:
        result = self.edit(request, executor, report_progress, should_stop)
        return result, {name.partition(".")[0] for name in sys.modules}


@dataclass(frozen=True)
class KillingHalfWay:
    """Runs an edit and kills a process half-way through its inversion, the first time.

    Checkpoints are written after each timestep, and a dead trainer's lease is soon over.

    Attributes:
        edit: what to run.
        timestep: it happens after this timestep's first optimiser step.
        killed: a file that then holds the id of the killed process.
        pid: which process; this one if None.
    """

    edit: StoredEdit
    timestep: int
    killed: Path
    pid: int | None = None

    def __call__(
        self,
        request: PreparedEdit,
        executor: Executor,
        report_progress: Report,
        should_stop: ShouldStop,
    ) -> EditResult:
        def report(progress: Progress) -> None:
            report_progress(progress)
            if progress.detail.get("timestep_index") == self.timestep and not self.killed.exists():
                pid = self.pid or os.getpid()
                self.killed.write_text(str(pid))
                os.kill(pid, signal.SIGKILL)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("farm.runner.running._CHECKPOINT_SECONDS", 0.0)
            patch.setattr("farm.runner.running._LEASE_SECONDS", 1.0)
            return self.edit(request, executor, report, should_stop)
