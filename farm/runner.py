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
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from jaxtyping import Float
from torch import Tensor

from farm.calls import Executor, Meter
from farm.diffusion import DiffusionClient
from farm.errors import EditCancelledError, InvalidImageError, InvalidRequestError
from farm.images import decode_image, encode_png, fit_to_model, image_digest, restore
from farm.masks import dilate, feather
from farm.methods.style_diffusion import METHOD_VERSION
from farm.methods.style_diffusion.config import StyleDiffusionConfig
from farm.methods.style_diffusion.editing import EditOutput, edit
from farm.methods.style_diffusion.inversion import invert
from farm.methods.style_diffusion.inverted import Inversion, InversionState
from farm.methods.style_diffusion.plan import EditPlan, plan_prompts
from farm.progress import Progress
from farm.requests import EditRequest
from farm.results import EditResult, Provenance
from farm.storage.checkpoints import load_checkpoint, save_checkpoint
from farm.storage.commits import CommitRecord, commit, read_commit, read_file
from farm.storage.layout import attempt_file_key, edit_prefix, input_key, stage_prefix
from farm.storage.leases import Lease
from farm.storage.stages import wait_or_compute
from farm.storage.store import Store
from farm.storage.tensors import pack_tensors, unpack_tensors
from farm.zoo.model_sets import ModelSet

_LEASE_SECONDS = 20.0
_CHECKPOINT_SECONDS = 10.0
_POLL_SECONDS = 0.5
_INVERSION = "inversion.safetensors"
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
    plan = plan_prompts(
        model_set.tokenizer,
        request.source_prompt,
        request.target_prompt,
        config.editing,
        config.inversion.num_steps,
        request.target_word,
    )
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
            "config": config.editing.model_dump(mode="json"),
        }
    )
    return PreparedEdit(request, image, model_set, config, plan, digest, stage, edit_id)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def run_edit(
    prepared: PreparedEdit,
    store: Store,
    executor: Executor,
    *,
    tenant: str = "default",
    report: Report = lambda _: None,
    should_stop: ShouldStop = lambda: False,
) -> EditResult:
    """Do a prepared edit, or find it done.

    The inversion is taken from the store if there, waited for if somebody makes it now, made and
    committed otherwise; an interrupted one goes on from its checkpoint. The edit is committed once,
    whoever else tries the same.

    Args:
        prepared: what to do.
        store: the only truth; everything is written under the tenant's prefix.
        executor: the frozen networks.
        tenant: whose store.
        report: called with every step.
        should_stop: asked between steps.

    Raises:
        EditCancelledError: `should_stop` said so.
        FarmError: as its kind says.
    """
    target = edit_prefix(tenant, prepared.edit_id)
    done = read_commit(store, target)
    if done is not None:
        return _result_of(prepared.edit_id, target, done, reused=True)
    return _Run(prepared, store, executor, tenant, report, should_stop).run(target)


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
        self.meter = Meter(executor)
        spec = prepared.model_set.spec
        self.client = DiffusionClient(self.meter, spec, alone=prepared.request.deterministic)
        self.attempt = uuid.uuid4().hex
        self.started = time.monotonic()
        self.stage_seconds: dict[str, float] = {}
        self.original = decode_image(prepared.image)
        self.square, self.placement = fit_to_model(self.original.image, spec.image_size)

    def run(self, target: str) -> EditResult:
        prepared = self.prepared
        self.store.put_if_absent(input_key(self.tenant, prepared.image_digest), prepared.image)
        stage = stage_prefix(self.tenant, prepared.stage_digest)
        waited = time.monotonic()
        _, computed = wait_or_compute(
            self.store,
            stage,
            self.attempt,
            self._invert,
            ttl=_LEASE_SECONDS,
            poll=_POLL_SECONDS,
            should_stop=self.should_stop,
        )
        if not computed:
            self.stage_seconds["wait"] = time.monotonic() - waited
        inversion = load_inversion(self.store, self.tenant, prepared.stage_digest)
        output = self._drive(
            "editing", edit(inversion, prepared.plan, self.client, prepared.config.editing)
        )
        provenance = self._provenance(stage_reused=not computed)
        files = self._files(output, provenance)
        extra = {"provenance": provenance.model_dump(mode="json")}
        done = commit(self.store, target, self.attempt, files, extra)
        return _result_of(prepared.edit_id, target, done, reused=not done.won)

    def _invert(self, lease: Lease) -> dict[str, bytes]:
        """The stage's files; keeps the lease alive and a checkpoint in the store meanwhile."""
        prepared, tokenizer = self.prepared, self.prepared.model_set.tokenizer
        stage = stage_prefix(self.tenant, prepared.stage_digest)
        stored = load_checkpoint(self.store, stage)
        checkpoint = None
        if stored is not None:
            checkpoint = InversionState.from_tensors(unpack_tensors(stored)[0])
        saved = time.monotonic()

        def keep(progress: Progress) -> None:
            nonlocal saved
            lease.renew_if_due()
            due = time.monotonic() - saved >= _CHECKPOINT_SECONDS
            if progress.checkpoint is not None and due:
                data = pack_tensors(progress.checkpoint.to_tensors(), {})
                save_checkpoint(self.store, stage, data, lease)
                saved = time.monotonic()

        steps = invert(
            self.square,
            tokenizer.encode(prepared.request.source_prompt),
            tokenizer.encode(""),
            self.client,
            prepared.config.inversion,
            seed=prepared.request.seed,
            checkpoint=checkpoint,
        )
        inversion = self._drive("inversion", steps, keep)
        return {_INVERSION: pack_tensors(inversion.to_tensors(), inversion.metadata())}

    def _drive(
        self,
        stage: str,
        steps: Generator[Progress, None, _T],
        each: Callable[[Progress], None] = lambda _: None,
    ) -> _T:
        """Run a stage to its end: report each step, stop where asked, time it."""
        started = time.monotonic()
        while True:
            if self.should_stop():
                raise EditCancelledError(
                    f"edit {self.prepared.edit_id} was cancelled during {stage}"
                )
            try:
                progress = next(steps)
            except StopIteration as finished:
                self.stage_seconds[stage] = time.monotonic() - started
                return finished.value
            self.report(progress)
            each(progress)

    def _files(self, output: EditOutput, provenance: Provenance) -> dict[str, bytes]:
        """What is committed: pictures at the original's resolution, figures beside them."""
        text = {
            "editfarm:edit": self.prepared.edit_id,
            "editfarm:target_prompt": self.prepared.request.target_prompt,
            "editfarm:seed": str(self.prepared.request.seed),
        }
        edited = self._restored(output.image, output.mask)
        files = {
            "edited.png": encode_png(edited, text=text, alpha=self.original.alpha),
            "reconstruction.png": encode_png(output.reconstruction),
            "attention.png": encode_png(output.attention[None]),
        }
        if output.mask is not None:
            files["mask.png"] = encode_png(output.mask[None])
        figures = {**output.figures, "provenance": provenance.model_dump(mode="json")}
        files["metrics.json"] = json.dumps(figures, indent=1).encode()
        return files

    def _restored(
        self, edited: Float[Tensor, "3 size size"], mask: Float[Tensor, "size size"] | None
    ) -> Float[Tensor, "3 height width"]:
        """The edited square back in the original.

        Where the blend kept the source, the original's own pixels stay; a soft border of a
        latent's width hides what the autoencoder alone changes there.
        """
        if mask is not None and self.prepared.config.editing.paste_back:
            spec = self.client.spec
            border = spec.image_size // spec.latent_size // 2
            mask = feather(dilate(mask, border), border)[None]
            return restore(edited, self.original, self.placement, mask)
        return restore(edited, self.original, self.placement)

    def _provenance(self, *, stage_reused: bool) -> Provenance:
        prepared = self.prepared
        return Provenance(
            method=prepared.request.method,
            method_version=METHOD_VERSION,
            model_set=prepared.model_set.name,
            weights=prepared.model_set.digests,
            seed=prepared.request.seed,
            config=prepared.config.model_dump(mode="json"),
            versions=versions(),
            image_digest=prepared.image_digest,
            stage=prepared.stage_digest,
            stage_reused=stage_reused,
            trainer_pid=os.getpid(),
            backbone_pids=sorted(self.meter.pids),
            work=dict(sorted(self.meter.work.items())),
            accelerator_seconds=self.meter.seconds,
            seconds=time.monotonic() - self.started,
            stage_seconds=self.stage_seconds,
        )


def versions() -> dict[str, str]:
    """Versions of what influences a result; of the trainer's machine."""
    return {name: metadata.version(name) for name in ("editfarm", "torch", "diffusers", "numpy")}


def _result_of(edit_id: str, target: str, record: CommitRecord, *, reused: bool) -> EditResult:
    return EditResult(
        edit_id=edit_id,
        attempt=record.attempt,
        files={name: attempt_file_key(target, record.attempt, name) for name in record.files},
        provenance=Provenance.model_validate(record.extra["provenance"]),
        reused=reused,
    )


def load_result(store: Store, tenant: str, edit_id: str) -> EditResult | None:
    """A committed edit, or None while there is none."""
    target = edit_prefix(tenant, edit_id)
    record = read_commit(store, target)
    return None if record is None else _result_of(edit_id, target, record, reused=True)


def load_inversion(store: Store, tenant: str, stage_digest: str) -> Inversion:
    """A committed inversion.

    Raises:
        InvalidRequestError: there is none.
    """
    stage = stage_prefix(tenant, stage_digest)
    record = read_commit(store, stage)
    if record is None:
        raise InvalidRequestError(f"no inversion {stage_digest} in {store.uri}: run the edit first")
    tensors, about = unpack_tensors(read_file(store, stage, record, _INVERSION))
    return Inversion.from_tensors(tensors, about)


def load_output(store: Store, result: EditResult, name: str) -> bytes:
    """One output of an edit by name, e.g. "edited.png".

    Raises:
        InvalidRequestError: the edit has no such output.
    """
    if name not in result.files:
        raise InvalidRequestError(
            f"edit {result.edit_id} has no output {name!r}; it has {', '.join(result.files)}"
        )
    return store.get(result.files[name])
