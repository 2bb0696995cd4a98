"""A request, its image and its model set, checked whole and named by what determines the result."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from farm.errors import InvalidImageError
from farm.images import decode_image, encode_png, image_digest
from farm.requests import GENERATED, EditRequest
from farm.runner.method import MethodRun
from farm.runner.methods import plan_method
from farm.zoo.model_sets import ModelSet


@dataclass(frozen=True)
class PreparedEdit:
    """A request that has passed every check that needs no network; pickles."""

    request: EditRequest
    image: bytes
    model_set: ModelSet
    method: MethodRun
    image_digest: str
    stages: Mapping[str, str]
    """Digest of what determines each stage, by its name, in order."""
    edit_id: str
    """What determines the result."""

    @property
    def stage_digest(self) -> str:
        """Of the last stage, which all others lead to."""
        return list(self.stages.values())[-1]


def read_image(uri: str, *, base: Path) -> bytes:
    """Bytes of a local image; relative paths are relative to `base` (the manifest's folder).

    A source that is to be generated has none.

    Raises:
        InvalidImageError: the file cannot be read.
    """
    if uri == GENERATED:
        return b""
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
    if request.is_generated:
        side = model_set.spec.image_size
        image = encode_png(torch.zeros(3, side, side))  # a frame for what will be drawn
    decode_image(image)
    method = plan_method(request, model_set)
    picture = image_digest(image)
    common = {
        "method": request.method,
        "version": method.version,
        "image": picture,
        "weights": model_set.digests_of(method.parts),
        "seed": request.seed,
        "deterministic": request.deterministic,
    }
    stages: dict[str, str] = {}
    before = _digest(common)
    for stage in method.stages:
        before = _digest({"before": before, "stage": stage.name, "depends": stage.depends})
        stages[stage.name] = before
    edit_id = _digest({"before": before, "depends": method.depends})
    return PreparedEdit(request, image, model_set, method, picture, stages, edit_id)


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
