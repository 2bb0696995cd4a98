"""Encoded training pictures on disk: made once by whoever comes first, with how far it is."""

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

Tell = Callable[[int, int], None]
"""Is told how many pictures are encoded, and of how many."""


class Encoding(NamedTuple):
    """How far a pool is that somebody is making."""

    what: str
    """Name of the pool's kind."""
    done: int
    total: int


def cached_tensors(path: Path, make: Callable[[Tell], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `make` makes, kept in a file; of several workers one makes it and the others wait.

    Args:
        path: of the file, `<kind>-<digest>.safetensors`.
        make: makes the tensors and tells how far it is, which `encoding` then says elsewhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.is_file():
            told = path.with_suffix(".progress")
            try:
                made = make(lambda done, total: _tell(told, done, total))
            finally:
                told.unlink(missing_ok=True)
            partial = path.with_suffix(".partial")
            save_file(made, partial)
            partial.replace(path)
    return load_file(path)


def encoding(cache: Path) -> Encoding | None:
    """The pool that is being made in a folder, in whatever process; none where none is."""
    for told in sorted(cache.glob("*.progress")):
        if not _held(told.with_suffix(".lock")):
            continue  # whoever told it was killed
        try:
            done, total = map(int, told.read_text(encoding="ascii").split())
        except (OSError, ValueError):
            continue  # finished, or written at this moment
        return Encoding(told.stem.partition("-")[0], done, total)
    return None


def _tell(path: Path, done: int, total: int) -> None:
    path.write_text(f"{done} {total}", encoding="ascii")


def _held(path: Path) -> bool:
    """Whether somebody has a lock."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return path.is_file()
    return False
