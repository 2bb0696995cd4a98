"""Notes for the person at the terminal, and files where they asked for them; no Typer here."""

import errno
import os
import tempfile
from pathlib import Path

from rich.console import Console

from farm.errors import InvalidRequestError

console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """A line for the person at the terminal; not a result."""
    console.print(message, markup=False, soft_wrap=True)


def check_file(path: Path) -> None:
    """Find out before any work that `write_file` will not be able to write there.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    except OSError as error:
        raise _unwritable(path, error) from error


def write_file(path: Path, data: bytes) -> None:
    """Write a result where the user asked for it.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    if isinstance(error, FileExistsError):  # how mkdir says that it stands in the way
        return InvalidRequestError(f"cannot write {path}: {path.parent} is a file; choose another")
    return InvalidRequestError(f"cannot write {path}: {error.strerror}; choose another path")
