"""Where an edit is computed: what any such place takes and gives, and this process as one."""

import atexit
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

from farm.calls import Answer, Call, Executor
from farm.requests import EditRequest, parse_request
from farm.results import EditResult, Provenance
from farm.runner import PreparedEdit, Report, load_output, prepare, run_edit
from farm.storage.opening import open_store
from farm.storage.store import Store, check_writable
from farm.zoo.model_sets import ModelSet, open_model_set

TENANT = "default"
_KEPT_MODEL_SETS = 2


@dataclass(frozen=True)
class Task:
    """One edit as it was asked for.

    Attributes:
        fields: of an `EditRequest`, without its picture and its mask.
        picture: bytes of a PNG, JPEG or WebP file.
        mask: likewise, where one was drawn.
    """

    fields: Mapping[str, Any]
    picture: bytes
    mask: bytes | None = None

    def request(self) -> EditRequest:
        """The request, checked; pictures are in `picture` and `mask`, so it names none.

        Raises:
            InvalidRequestError: naming each wrong field.
        """
        drawn = {} if self.mask is None else {"mask": "mask.png"}
        return parse_request({**self.fields, **drawn, "image": "picture.png"})

    def prepare(self, model_set: ModelSet) -> PreparedEdit:
        """The edit, checked whole.

        Raises:
            InvalidRequestError: saying what to change.
        """
        return prepare(self.request(), self.picture, model_set, mask=self.mask)


@dataclass(frozen=True)
class Finished:
    """What a place says of an edit that is done.

    Attributes:
        edit_id: digest of everything that determines the result.
        names: of the outputs.
        load: bytes of an output by its name.
        provenance: where the result comes from and what it cost.
        reused: whether it had been there before.
    """

    edit_id: str
    names: tuple[str, ...]
    load: Callable[[str], bytes]
    provenance: Provenance
    reused: bool

    @classmethod
    def of(cls, store: Store, result: EditResult) -> "Finished":
        """An edit that lies in a store."""
        return cls(
            result.edit_id,
            tuple(result.files),
            cache(lambda name: load_output(store, result, name)),
            result.provenance,
            result.reused,
        )


@runtime_checkable
class Place(Protocol):
    """Computes edits: this process, a farm behind HTTP, a Ray cluster."""

    def run(self, task: Task, report: Report) -> Finished:
        """One edit to its end.

        Args:
            task: what is asked.
            report: told of its steps.

        Raises:
            FarmError: what became of it otherwise.
        """
        ...


class InProcess:
    """This process; its networks are loaded with the first edit and stay.

    Args:
        store: where results and reusable inversions lie; by default a folder that ends with the
            process.

    Raises:
        StoreError: the store cannot be written.
    """

    def __init__(self, store: str | Path | None = None) -> None:
        self.store = open_store(str(store or _passing_folder()))
        check_writable(self.store)

    def run(self, task: Task, report: Report) -> Finished:
        """See `Place`.

        Raises:
            FarmError: as its kind says.
        """
        model_set = open_model_set(str(task.fields.get("model_set", "scenes")))
        prepared = task.prepare(model_set)
        executor = _LoadedWhenNeeded(model_set)
        result = run_edit(prepared, self.store, executor, tenant=TENANT, report=report)
        return Finished.of(self.store, result)


@dataclass(frozen=True)
class _LoadedWhenNeeded:
    """An executor whose networks come with the first call: what is in the store costs none."""

    model_set: ModelSet

    def run_all(self, calls: Sequence[Call]) -> list[Answer]:
        """See `farm.calls.Executor`."""
        digests = tuple(sorted(self.model_set.digests.items()))
        return _host(self.model_set.folder, digests).run_all(calls)


@lru_cache(maxsize=_KEPT_MODEL_SETS)
def _host(folder: Path, digests: tuple[tuple[str, str], ...]) -> Executor:
    """The networks of a folder; its digests are part of what tells it from another."""
    del digests
    # by name: it imports the networks' libraries, which a client of a farm never needs
    return importlib.import_module("farm.inline").load_host(open_model_set(str(folder)))


@cache
def _passing_folder() -> Path:
    """A folder for stores that nobody named; it goes with the process."""
    folder = TemporaryDirectory(prefix="editfarm-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name)
