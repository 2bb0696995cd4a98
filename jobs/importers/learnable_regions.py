"""The `images.json` of Learnable Regions' program (seeds 002, 003; spec §5) as requests.

    {"1.png": ["trees", "a big tree with many flowers in the center"], …}

Each key is a picture's file, each value its caption and the editing prompt. Pictures are looked for
in `image_dir_path` if that is given, else beside the file and in its `images` folder. The program's
flags are given as parameters of the job; `released_flags` says what becomes of each.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path
from typing import Any

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.requests import parse_request
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, Line, ManifestLine

IMAGES_FILE = "images.json"
_FOLDER = "images"
_PAIR = "[caption, editing prompt], both text"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_NO_EFFECT = ("num_workers", "pin_mem", "ckpt_interval")
"""Flags of the program's own machinery, which change no result here or there."""
_ELSEWHERE: Mapping[str, str] = {
    "diffusion_model_path": "--model-set names the networks",
    "json_file": "the file itself is what is read",
    "image_file_path": "editfarm edit --image edits one picture",
    "image_caption": "editfarm edit --source says it of one picture",
    "editing_prompt": "editfarm edit --target says it of one picture",
    "image_size": "pictures are edited at their own resolution",
}


@dataclass(frozen=True)
class ReleasedFlags:
    """The program's flags, sorted by whom they concern.

    Attributes:
        parameters: of the method.
        seed: of all requests; None where it is not given.
        images: folder of the pictures.
        save_path: where AnchorNet's weights are wanted besides the store, which has them anyway.
        output_dir: where pictures are wanted besides the store.
    """

    parameters: Mapping[str, Any]
    seed: Any = None
    images: Path | None = None
    save_path: Path | None = None
    output_dir: Path | None = None


def released_flags(given: Mapping[str, Any]) -> ReleasedFlags:
    """Sort the job's parameters; flags of no effect here or there are dropped.

    Raises:
        InvalidRequestError: a flag whose meaning the farm has another place for.
    """
    for name, instead in _ELSEWHERE.items():
        if name in given:
            raise InvalidRequestError(f"{name}: leave it out, {instead}")
    own = {"seed", "image_dir_path", "save_path", "output_dir", *_NO_EFFECT}
    return ReleasedFlags(
        parameters={name: value for name, value in given.items() if name not in own},
        seed=given.get("seed"),
        images=_path(given, "image_dir_path"),
        save_path=_path(given, "save_path"),
        output_dir=_path(given, "output_dir"),
    )


def _path(given: Mapping[str, Any], name: str) -> Path | None:
    value = given.get(name)
    if value is not None and not (isinstance(value, str) and value):
        raise InvalidRequestError(f"{name}: found {value!r:.80}, expected a folder's path")
    return None if value is None else Path(value)


def read_learnable_regions(path: Path, options: ImportOptions) -> Iterator[Line]:
    """All entries in the file's order; a wrong one says which, what was found and what is allowed.

    Raises:
        InvalidManifestError: the file cannot be read, or is no JSON object.
        InvalidRequestError: see `released_flags`.
    """
    flags = released_flags(options.parameters)
    for number, fields in enumerate(read_fields(path, flags), start=1):
        if isinstance(fields, BrokenLine):
            yield fields
            continue
        place = fields.pop("place")
        name = str(fields["id"])
        try:
            request = parse_request({**fields, "model_set": options.model_set})
        except InvalidRequestError as error:
            yield BrokenLine(number, name, InvalidManifestError(f"{place}: {error.message}"))
            continue
        yield ManifestLine(number, name, request, None, place)


def read_fields(path: Path, flags: ReleasedFlags) -> Iterator[dict[str, Any] | BrokenLine]:
    """Fields of a request for each entry, with its `place` in the file; or why there are none."""
    seen: set[str] = set()
    for number, (key, value) in enumerate(_entries(path), start=1):
        name = key if _ID.fullmatch(key) else f"entry-{number}"
        try:
            if key in seen:
                raise _wrong(key, "key", "a second time", "each picture once")
            seen.add(key)
            yield {"id": name, "place": _place(key)} | _fields(key, value, path, flags)
        except InvalidManifestError as error:
            yield BrokenLine(number, name, error)


def _fields(key: str, value: Any, path: Path, flags: ReleasedFlags) -> dict[str, Any]:
    if not isinstance(value, list) or isinstance(value, _Pairs) or len(value) != 2:
        raise _wrong(key, "value", _shown(value), _PAIR)
    caption, prompt = value
    for name, text in (("caption", caption), ("editing prompt", prompt)):
        if not isinstance(text, str):
            raise _wrong(key, name, _shown(text), "text")
        if not text.strip():
            raise _wrong(key, name, "nothing", "what the picture shows, and what it shall show")
    if caption.split() == prompt.split():
        raise _wrong(key, "editing prompt", f"the caption {caption!r:.80}", "something else to see")
    fields: dict[str, Any] = {
        "method": "learnable_regions",
        "image": _image(key, path, flags),
        "source_prompt": caption,
        "target_prompt": prompt,
        "parameters": dict(flags.parameters),
    }
    return fields if flags.seed is None else fields | {"seed": flags.seed}


def _image(key: str, path: Path, flags: ReleasedFlags) -> str:
    """The picture's path relative to the file's folder, or absolute as it was given."""
    if Path(key).is_absolute():
        return key
    here = path.parent.resolve()
    folders = [here, here / _FOLDER] if flags.images is None else [flags.images.resolve()]
    for folder in folders:
        if (folder / key).is_file():
            return relpath(folder / key, here)
    looked = " and ".join(map(str, folders))
    raise _wrong(key, "key", f"no such file in {looked}", "a picture there, or image_dir_path")


def _entries(path: Path) -> list[tuple[str, Any]]:
    """Pairs of the file's object, doubles included."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
    except OSError as error:
        raise InvalidManifestError(
            f"cannot read {path}: {error.strerror}; name the {IMAGES_FILE} of your pictures"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidManifestError(
            f"{path} is not JSON ({error}): an object is expected, with {_PAIR} for each picture"
        ) from error
    if not isinstance(found, _Pairs):
        raise InvalidManifestError(
            f"{path} holds {type(found).__name__}: an object is expected, with {_PAIR} for each "
            "picture"
        )
    return list(found)


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON as it is written, with keys that come twice."""


def _wrong(key: str, field: str, found: str, expected: str) -> InvalidManifestError:
    return InvalidManifestError(f"{_place(key)}, {field}: found {found}, expected {expected}")


def _shown(value: Any) -> str:
    plain = dict(value) if isinstance(value, _Pairs) else value
    return f"{plain!r:.80}"


def _place(key: str) -> str:
    return f"entry {key!r:.100}"
