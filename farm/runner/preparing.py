"""A request, its image and its model set, checked whole and named by what determines the result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from farm.errors import InvalidImageError
from farm.images import decode_image, encode_png, image_digest
from farm.requests import GENERATED, AutoRequest, EditRequest
from farm.runner.auto import plan_auto
from farm.runner.method import MethodRun, PreparedEdit, StagePlan
from farm.runner.methods import plan_method
from farm.zoo.model_sets import ModelSet


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
    except ValueError as error:  # a null byte, which no file's name can have
        raise InvalidImageError(f"{str(path)!r}: {error}; check the path of the image") from error


def read_mask(request: EditRequest, *, base: Path) -> bytes | None:
    """Bytes of the mask that a request names; None where it names none.

    Raises:
        InvalidImageError: see `read_image`.
    """
    named = request.drawn_mask
    return None if named is None else read_image(named, base=base)


def prepare(
    request: EditRequest, image: bytes, model_set: ModelSet, *, mask: bytes | None = None
) -> PreparedEdit:
    """Check a request whole, before any accelerator second is spent.

    Args:
        request: what is asked.
        image: bytes of its picture; those of a source that is to be drawn are empty.
        model_set: which networks.
        mask: bytes of the mask that the request names (`read_mask`).

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    if request.is_generated:
        side = model_set.spec.image_size
        image = encode_png(torch.zeros(3, side, side))  # a frame for what will be drawn
    method = _planned(request, image, model_set, mask)
    picture = image_digest(image)
    common = {
        "method": request.method,
        "version": method.version,
        "image": picture,
        "weights": model_set.digests_of(method.parts),
        "seed": request.seed,
        "deterministic": request.deterministic,
    }
    root = _digest(common)
    stages = stage_digests(root, method.stages)
    edit_id = _digest({"before": [root, *stages.values()][-1], "depends": method.depends})
    return PreparedEdit(request, image, model_set, method, picture, root, stages, edit_id)


def _planned(
    request: EditRequest, image: bytes, model_set: ModelSet, mask: bytes | None
) -> MethodRun:
    if not isinstance(request, AutoRequest):
        return plan_method(request, model_set, decode_image(image), mask)

    def checked(candidate: EditRequest) -> PreparedEdit:
        return prepare(candidate, image, model_set)

    return plan_auto(request, model_set, checked)


def stage_digests(root: str, stages: Sequence[StagePlan]) -> dict[str, str]:
    """Digest of what determines each stage, those before it included."""
    digests: dict[str, str] = {}
    before = root
    for stage in stages:
        before = _digest({"before": before, "stage": stage.name, "depends": stage.depends})
        digests[stage.name] = before
    return digests


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
