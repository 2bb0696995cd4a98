"""The life of one edit, with no Ray in it: checked, inverted or inversion found, edited, committed.

`prepare` refuses everything that can be refused without a network. `run_edit` is what a trainer
does, wherever it runs: inline in this process, or in a Ray task with a remote executor.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from farm.calls import Executor, Meter
from farm.diffusion import DiffusionClient
from farm.errors import EditCancelledError, InvalidImageError, InvalidRequestError
from farm.images import decode_image, encode_png, fit_to_model, image_digest, restore
from farm.methods.style_diffusion import METHOD_VERSION
from farm.methods.style_diffusion.config import StyleDiffusionConfig
from farm.methods.style_diffusion.editing import EditOutput, EditPlan, edit, plan_edit
from farm.methods.style_diffusion.inversion import Inversion, InversionState, invert
from farm.progress import Progress
from farm.requests import EditRequest
from farm.results import EditResult, Provenance
from farm.storage.commits import CommitRecord, commit, read_commit, read_file
from farm.storage.layout import edit_prefix, input_key, stage_prefix
from farm.storage.leases import Lease
from farm.storage.stages import load_checkpoint, save_checkpoint, wait_or_compute
from farm.storage.store import Store
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.zoo.model_sets import ModelSet

_LEASE_SECONDS = 30.0
_CHECKPOINT_SECONDS = 10.0
_POLL_SECONDS = 0.5
_T = TypeVar("_T")

Report = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True)
class PreparedEdit:
    """A request that has passed every check that needs no network; pickles."""

    request: EditRequest
    image: bytes
    model_set: ModelSet
    config: StyleDiffusionConfig
    plan: EditPlan
    image_digest: str
    stage_digest: str
    """What determines the inversion: image, source prompt, configuration, weights, code."""
    edit_id: str
    """What determines the result."""


def read_image(uri: str, *, base: Path) -> bytes:
    """Bytes of a local image; relative paths are relative to `base` (the manifest's folder).

    Raises:
        InvalidImageError: the file cannot be read.
    """
    if "://" in uri and not uri.startswith("file://"):
        raise InvalidImageError(
            f"{uri}: only files can be read here; copy the image next to the manifest"
        )
    path = base / uri.removeprefix("file://")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidImageError(f"{path}: {error.strerror}; check the path of the image") from error


def prepare(request: EditRequest, image: bytes, model_set: ModelSet) -> PreparedEdit:
    """Check a request whole, before any accelerator second is spent.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    decode_image(image)
    config = model_set.style_diffusion.with_parameters(request.parameters)
    plan = plan_edit(request, model_set.tokenizer, config)
    digest = image_digest(image)
    stage = _digest(
        {
            "method": request.method,
            "version": METHOD_VERSION,
            "image": digest,
            "source_prompt": request.source_prompt,
            "config": config.inversion.model_dump(mode="json"),
            "weights": model_set.digests,
            "seed": request.seed,
            "deterministic": request.deterministic,
        }
    )
    edit_id = _digest(
        {
            "stage": stage,
            "target_prompt": request.target_prompt,
            "target_word": request.target_word,
            "source_words": request.parameters.source_words,
            "target_words": request.parameters.target_words,
            "config": config.editing.model_dump(mode="json"),
        }
    )
    return PreparedEdit(request, image, model_set, config, plan, digest, stage, edit_id)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class _Run:
    """What one attempt carries along."""

    prepared: PreparedEdit
    store: Store
    client: DiffusionClient
    meter: Meter
    tenant: str
    owner: str
    report: Report
    should_stop: ShouldStop
    seconds: dict[str, float] = field(default_factory=dict)

    def drive(
        self, stage: str, steps: Generator[Progress, None, _T], each: Callable[[], None] = lambda: None
    ) -> _T:
        """Run a stage to its end: report each step, stop where asked, time it."""
        started = time.monotonic()
        try:
            while True:
                if self.should_stop():
                    raise EditCancelledError(
                        f"edit {self.prepared.edit_id} was cancelled during {stage}"
                    )
                self.report(next(steps))
                each()
        except StopIteration as finished:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started
            return finished.value
