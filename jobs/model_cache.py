"""Fill a machine's model cache: a model set's files, whole and checked, ready to be mapped.

    python -m jobs.model_cache s3://bucket/models/mine --to /models
    python -m jobs.model_cache sd15+regions --to /models
    python -m jobs.model_cache sd15+regions --mirror s3://bucket/hub --to /models

Weights are safetensors, which backbones map into memory: processes of one machine share the pages.
A set of released checkpoints is fetched from the hub, or from a mirror of it in a store, and
converted, once. Files that are there with the right digest stay, so a second start costs a reading
of the disk. Two machines may fill one shared cache at once: a file, or a converted set, appears
whole, by a rename.
"""

import hashlib
import json
import shutil
import socket
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidRequestError, ModelSetError
from farm.storage.opening import open_store
from farm.storage.store import MissingKeyError
from farm.zoo.model_sets import has_manifest, is_embedded, open_model_set
from farm.zoo.released_sets import is_released
from jobs.bars import bar
from jobs.console import FarmCommand, command_app, say
from jobs.hub_mirror import HubMirror
from jobs.model_pull import from_hub, pull

_MANIFEST = "model_set.json"
_BLOCK = 2**22
_ABANDONED_SECONDS = 86_400.0
"""Without a new file: nobody works on it any more."""

app = command_app()


@app.command(cls=FarmCommand)
def model_cache(
    source: Annotated[str, typer.Argument(help="A model set's name, folder or s3:// prefix.")],
    to: Annotated[Path, typer.Option(help="Folder of the cache.")],
    mirror: Annotated[
        str | None,
        typer.Option(help="Folder or s3:// prefix with OWNER/NAME/FILE, asked in the hub's place."),
    ] = None,
) -> None:
    """Fill a machine's model cache."""
    if is_embedded(source):
        open_model_set(source).verify()
        say(f"{source} comes with the package: nothing to fetch")
        return
    if is_released(source):
        folder = to / source
        made = convert(source, folder, mirror)
        open_model_set(str(folder)).verify()
        say(f"{folder}: {'converted' if made else 'is there'}, all digests match")
        return
    if mirror is not None:
        raise InvalidRequestError(
            f"a mirror has released checkpoints, and {source!r} names none: leave --mirror out, or "
            "name a set that `editfarm models list` shows"
        )
    folder = to / source.rstrip("/").rsplit("/", maxsplit=1)[-1]
    fetched = fill(source, folder)
    open_model_set(str(folder)).verify()
    say(f"{folder}: {fetched} files fetched, all digests match")


def convert(name: str, folder: Path, mirror: str | None) -> bool:
    """Put a set of released checkpoints together; False if it is there already.

    It is made beside the folder under this machine's name, so that a start after a crash goes on
    where the last one was, and then renamed. The first of several machines wins; what others left
    half-made a day ago is removed.

    Raises:
        ModelSetError: no such set, or a checkpoint is not what it should be.
        UnavailableError: neither the hub nor its mirrors answer.
        StoreError: the mirror cannot be read.
    """
    mine = folder.with_name(f".{name}.{socket.gethostname()}")
    _remove_abandoned(folder, mine)
    if has_manifest(folder):
        return False
    fetched = mine.with_name(f"{mine.name}.fetched")
    fetch = from_hub if mirror is None else HubMirror(open_store(mirror), fetched)
    pull(name, mine, fetch=fetch)
    won = _appears(mine, folder)
    shutil.rmtree(fetched, ignore_errors=True)
    return won


def _remove_abandoned(folder: Path, mine: Path) -> None:
    """Remove what machines that never came back left half-made; `mine` is gone on with."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left == mine:
            continue
        with suppress(FileNotFoundError):  # another machine removes or renames it just now
            # of folders: a file that is shared with the hub's cache may be months old
            folders = [left, *(path for path in left.rglob("*") if path.is_dir())]
            changed = max(path.stat().st_mtime for path in folders)
            if changed < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _appears(mine: Path, folder: Path) -> bool:
    """Rename a whole folder; False, and it is gone, if another machine was there before."""
    try:
        mine.rename(folder)
    except OSError:
        if not has_manifest(folder):
            raise
        shutil.rmtree(mine)
        return False
    return True


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
