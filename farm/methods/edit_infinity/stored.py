"""Reading artifacts back: what may be missing from one, and what to say then."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from farm.errors import CorruptArtifactError

_T = TypeVar("_T")


def read_artifact(what: str, read: Callable[[], _T], found: Mapping[str, object]) -> _T:
    """The artifact that `read` puts together.

    Raises:
        CorruptArtifactError: something is missing or is not what it should be.
    """
    try:
        return read()
    except (KeyError, ValueError, IndexError) as error:
        raise CorruptArtifactError(
            f"stored {what} cannot be read ({type(error).__name__}: {error}); it has "
            f"{sorted(found)}: delete it and run the stage again"
        ) from error
