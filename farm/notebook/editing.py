"""`edit`: one call, one edit, wherever it is computed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from farm.errors import InvalidRequestError
from farm.notebook.edited import Edited
from farm.notebook.http_farm import HttpFarm
from farm.notebook.pictures import Picture, picture_bytes
from farm.notebook.places import InProcess, Place, Task
from farm.notebook.progress_view import Watch, watching

_PICTURES = ("image", "mask", "id")
"""Fields of a request that the pictures handed in take the place of, and its name in a manifest."""


def edit(
    picture: Picture,
    request: BaseModel | Mapping[str, Any] | None = None,
    *,
    source: str | None = None,
    target: str | None = None,
    word: str | None = None,
    mask: Picture | None = None,
    method: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int | None = None,
    model_set: str | Path | None = None,
    farm: Place | str | None = None,
    key: str | None = None,
    store: str | Path | None = None,
    progress: Watch = True,
    **more: Any,
) -> Edited:
    """Edit a picture by changing its description.

    Everything is checked before anything is computed. In this process the networks are loaded by
    the first edit and stay, and what was learned of a picture is used by its next edit.

    Args:
        picture: a PIL image, a path, or the bytes of a PNG, JPEG or WebP file.
        request: an `EditRequest`, or its fields; what is named below goes before it.
        source: what the picture shows.
        target: what it shall show.
        word: the target's word that is new (edit_infinity: the source's word to edit).
        mask: where to edit, drawn, for methods that take one; white is edited.
        method: how to edit; style_diffusion by default.
        parameters: of the method; what is left out is the model set's default.
        seed: of everything random; 0 by default.
        model_set: a name, or the folder of one; the embedded scenes by default.
        farm: where to compute: this process by default, the address of a farm
            ("http://127.0.0.1:8000"), or any `Place`.
        key: the API key of a farm that wants one.
        store: folder or s3:// address that keeps results and inversions of this process; by default
            they are kept as long as the process lives.
        progress: True shows a bar in terminals and notebooks; or a function that is told each step.
        more: further fields of a request, such as `deterministic` or `mask_edits`.

    Raises:
        InvalidRequestError: the request or a picture is wrong; the message says what to change.
        EditFailedError: this run failed.
        UnavailableError: the farm or the store is not there.
    """
    named = {
        "source_prompt": source,
        "target_prompt": target,
        "target_word": word,
        "method": method,
        "parameters": None if parameters is None else dict(parameters),
        "seed": seed,
        "model_set": None if model_set is None else str(model_set),
        **more,
    }
    fields = _fields(request) | {name: value for name, value in named.items() if value is not None}
    drawn = None if mask is None else picture_bytes(mask)
    task = Task(fields, picture_bytes(picture), drawn)
    task.request()
    place = _place(farm, key, store)
    with watching(progress) as report:
        return Edited(task, place.run(task, report))


def _fields(request: BaseModel | Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a request that say something of the edit itself."""
    if isinstance(request, BaseModel):
        request = request.model_dump(mode="json", exclude_unset=True)
    return {name: value for name, value in (request or {}).items() if name not in _PICTURES}


def _place(farm: Place | str | None, key: str | None, store: str | Path | None) -> Place:
    if farm is None:
        if key is not None:
            raise InvalidRequestError("found a key and no farm: name the farm that it is for")
        return InProcess(store)
    if store is not None:
        raise InvalidRequestError(
            f"found the store {str(store)!r} and a farm, which has a store of its own: leave it out"
        )
    if isinstance(farm, str):
        return HttpFarm(farm, key)
    if key is not None:
        raise InvalidRequestError("a key is for a farm that is named by its address: leave it out")
    return farm
