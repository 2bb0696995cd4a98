"""Fill a machine's model cache: a model set's files, whole and checked, ready to be mapped.

    python -m jobs.model_cache s3://bucket/models/sd15 --to /models

Weights are safetensors, which backbones map into memory: processes of one machine share the pages.
Files that are there with the right digest stay, so a second start costs a reading of the disk. Two
machines may fill one shared cache at once: a file appears whole, by a rename.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidRequestError, ModelSetError
from farm.storage.opening import open_store
from farm.storage.store import MissingKeyError
from farm.zoo.model_sets import is_embedded, open_model_set
from jobs.bars import bar
from jobs.console import FarmCommand, command_app, say

_MANIFEST = "model_set.json"
_BLOCK = 2**22

app = command_app()


@app.command(cls=FarmCommand)
def model_cache(
    source: Annotated[str, typer.Argument(help="A model set's name, folder or s3:// prefix.")],
    to: Annotated[Path, typer.Option(help="Folder of the cache.")],
) -> None:
    """Fill a machine's model cache."""
    if is_embedded(source):
        open_model_set(source).verify()
        say(f"{source} comes with the package: nothing to fetch")
        return
    folder = to / source.rstrip("/").rsplit("/", maxsplit=1)[-1]
    fetched = fill(source, folder)
    open_model_set(str(folder)).verify()
    say(f"{folder}: {fetched} files fetched, all digests match")


def fill(source: str, folder: Path) -> int:
    """Fetch what is missing; how many files that were.

    Raises:
        ModelSetError: the source holds no model set, or a file that is not what it should be.
        StoreError: it cannot be read.
    """
    store = open_store(source)
    try:
        manifest = store.get(_MANIFEST)
        digests: dict[str, str] = json.loads(manifest)["digests"]
    except (MissingKeyError, ValueError, KeyError) as error:
        raise ModelSetError(
            f"{source} holds no {_MANIFEST} with digests: give the folder of a model set"
        ) from error
    fetched = 0
    with bar(str(folder), len(digests)) as show:
        for number, (name, digest) in enumerate(digests.items()):
            show(number, name)
            path = _inside(folder, name)
            if path.is_file() and _digest(path) == digest:
                continue
            data = store.get(name)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ModelSetError(f"{source}/{name} is not what {_MANIFEST} says: copy it anew")
            _write(path, data)
            fetched += 1
    for name in _others(store.list("")):
        _write(_inside(folder, name), store.get(name))
    _write(folder / _MANIFEST, manifest)  # last: whoever sees it finds all the rest
    return fetched


def _others(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith((".safetensors", _MANIFEST))]


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InvalidRequestError(f"{name!r} leads out of the model set's folder")
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    part.write_bytes(data)
    part.replace(path)


if __name__ == "__main__":
    app()
