"""The example folders of EditInfinity's program (seeds 000, 001; spec §5.1) as requests.

| file | what |
|---|---|
| image/original_image.jpg | the picture; .jpeg, .png and .webp are taken too |
| prompt/original_image_prompt.txt | what it shows |
| prompt/edit_image_prompt.txt | what it shall show |
| prompt/target_word.txt | optional: a word of the first prompt, where the edit is to be |
| image/mask.png | optional: black where the edit is to be, white elsewhere |

With a mask the edit is inside it (example 2), with a word alone where that is looked at (example
3), with neither everywhere (example 1). A folder that holds example folders is all of them.
The program's switches are given as parameters of the job; `seed` too.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.requests import parse_request
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, Line, ManifestLine

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_PICTURE = "image/original_image"
_MASK = "image/mask.png"
_SOURCE = "prompt/original_image_prompt.txt"
_TARGET = "prompt/edit_image_prompt.txt"
_WORD = "prompt/target_word.txt"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")


def read_edit_infinity(path: Path, options: ImportOptions) -> Iterator[Line]:
    """One line for each example folder; a wrong one says which file, and what is expected there.

    Raises:
        InvalidManifestError: there is no such folder, or no example in it.
    """
    names: dict[str, int] = {}
    for number, folder in enumerate(example_folders(path), start=1):
        name = _name(folder, number, names)
        try:
            fields = _fields(folder, options.parameters)
            request = parse_request({**fields, "id": name, "model_set": options.model_set})
        except InvalidRequestError as error:
            message = error.message.removeprefix(f"{folder}: ")
            yield BrokenLine(number, name, InvalidManifestError(f"{folder}: {message}"))
            continue
        yield ManifestLine(number, name, request, None, str(folder))


def example_folders(path: Path) -> list[Path]:
    """The folder itself if it is an example, else those in it that are.

    Raises:
        InvalidManifestError: there is none.
    """
    if not path.is_dir():
        raise InvalidManifestError(f"{path} is no folder: name an example's, with {_SOURCE} in it")
    if _is_example(path):
        return [path.resolve()]
    found = [folder.resolve() for folder in sorted(path.iterdir()) if _is_example(folder)]
    if not found:
        raise InvalidManifestError(
            f"{path} is no example and holds none: expected {_PICTURE}.jpg, {_SOURCE} and {_TARGET}"
        )
    return found


def _is_example(folder: Path) -> bool:
    return (folder / "prompt").is_dir() and (folder / "image").is_dir()


def _fields(folder: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "method": "edit_infinity",
        "image": _picture(folder),
        "source_prompt": _text(folder, _SOURCE, "what the picture shows, in words"),
        "target_prompt": _text(folder, _TARGET, "what the picture shall show, in words"),
        "parameters": {name: value for name, value in parameters.items() if name != "seed"},
    }
    if "seed" in parameters:
        fields["seed"] = parameters["seed"]
    if (folder / _WORD).is_file():
        fields["target_word"] = _text(folder, _WORD, "a word of the original picture's prompt")
    if (folder / _MASK).is_file():
        fields |= {"mask": str(folder / _MASK), "mask_edits": "black"}
    return fields


def _picture(folder: Path) -> str:
    for ending in _ENDINGS:
        path = folder / f"{_PICTURE}{ending}"
        if path.is_file():
            return str(path)
    raise InvalidManifestError(f"{_PICTURE}.jpg is missing: copy the picture there")


def _text(folder: Path, name: str, expected: str) -> str:
    try:
        text = (folder / name).read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError as error:
        raise InvalidManifestError(f"{name} is missing: write there {expected}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidManifestError(f"{name} cannot be read ({error}): save it as UTF-8") from error
    if not text:
        raise InvalidManifestError(f"{name} is empty: write there {expected}")
    return text


def _name(folder: Path, number: int, names: dict[str, int]) -> str:
    """The folder's name as an id, each once."""
    name = _UNFIT.sub("-", folder.name).lstrip("._-")[:50] or f"example-{number}"
    count = names[name] = names.get(name, 0) + 1
    return name if count == 1 else f"{name}-{count}"
