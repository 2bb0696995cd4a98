"""Files in the forms of others as lines of a manifest.

An importer reads one file and gives the same lines as `jobs.manifests.read_manifest`: requests with
their numbers, or why a line is none. To add a form: a module with its reader, a row in `FORMS`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from farm.errors import InvalidRequestError
from farm.requests import METHODS
from jobs.expanding import expand
from jobs.importers.edit_infinity import read_edit_infinity
from jobs.importers.learnable_regions import IMAGES_FILE, read_learnable_regions
from jobs.importers.options import ImportOptions
from jobs.importers.pie import MAPPING_FILE, read_pie
from jobs.importers.style_diffusion import read_style_diffusion
from jobs.importers.tables import read_csv_table, read_parquet
from jobs.manifests import Line, read_manifest

Read: TypeAlias = Callable[[Path, ImportOptions], Iterator[Line]]


@dataclass(frozen=True)
class Form:
    """A form of files.

    Attributes:
        read: its importer.
        has_cases: whether its rows have case numbers to choose from.
        file_in_folder: the file to read where a folder is named.
        has_methods: whether its lines may name a method, so that others can be given one.
    """

    read: Read
    has_cases: bool = False
    file_in_folder: str | None = None
    has_methods: bool = False


JSONL = "jsonl"
FORMS: Mapping[str, Form] = {
    JSONL: Form(read_manifest, has_methods=True),
    "csv": Form(read_csv_table, has_methods=True),
    "parquet": Form(read_parquet, has_methods=True),
    "style-diffusion": Form(read_style_diffusion, has_cases=True),
    "learnable-regions": Form(read_learnable_regions, file_in_folder=IMAGES_FILE),
    "edit-infinity": Form(read_edit_infinity),
    "pie": Form(read_pie, file_in_folder=MAPPING_FILE),
}


_BY_SUFFIX: Mapping[str, str] = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


def form_of(name: str) -> str:
    """The form that a file's name shows; a manifest of JSON lines where it shows none."""
    return _BY_SUFFIX.get(Path(name.partition("?")[0]).suffix.lower(), JSONL)


@dataclass(frozen=True)
class Reading:
    """How a file is to be read.

    Attributes:
        form: one of `FORMS`.
        parameters: of the method, for lines that do not set them.
        from_case: the first case that counts.
        end_case: the case before which to stop.
        variations: seeds of each edit.
        methods: to compare; none for each line's own.
        method: of lines that name none, or of all in forms whose lines cannot name one.
    """

    form: str = JSONL
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    from_case: int | None = None
    end_case: int | None = None
    variations: int = 1
    methods: tuple[str, ...] = ()
    method: str | None = None

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            InvalidRequestError: an unknown form, or a choice of cases that it does not have.
        """
        if self.form not in FORMS:
            raise InvalidRequestError(
                f"no form {self.form!r} of files: --from takes {', '.join(FORMS)}"
            )
        if self.variations < 1:
            raise InvalidRequestError(f"--variations {self.variations}: 1 or more is expected")
        if self.method is not None and self.method not in METHODS:
            raise InvalidRequestError(f"--method {self.method!r}: there are {', '.join(METHODS)}")
        unknown = sorted(set(self.methods) - set(METHODS))
        if unknown or len(set(self.methods)) < len(self.methods):
            raise InvalidRequestError(
                f"--compare {','.join(self.methods)}: each of {', '.join(METHODS)} may be named "
                "once"
            )
        chosen = self.from_case is not None or self.end_case is not None
        if chosen and not FORMS[self.form].has_cases:
            raise InvalidRequestError(
                f"--from-case and --end-case choose by case_number, which a file of the form "
                f"{self.form!r} does not have: leave them out"
            )

    def file(self, path: Path) -> Path:
        """The file itself, where the form allows its folder to be named."""
        name = FORMS[self.form].file_in_folder
        return path / name if name is not None and path.is_dir() else path

    def lines(self, path: Path, *, model_set: str) -> Iterator[Line]:
        """All lines that count, in order; one at a time in memory.

        Raises:
            InvalidManifestError: the file cannot be read.
        """
        form = FORMS[self.form]
        options = ImportOptions(
            model_set, self.parameters, self.from_case, self.end_case, self.method
        )
        methods = self.methods
        if self.method is not None and not form.has_methods and not methods:
            methods = (self.method,)
        return expand(form.read(path, options), self.variations, methods)

    def text(self) -> str:
        """What tells this reading from others of the same file; empty for a manifest as it is."""
        if self == Reading():
            return ""
        chosen = [self.form, dict(self.parameters), self.from_case, self.end_case]
        if self.variations > 1 or self.methods or self.method:
            chosen += [self.variations, list(self.methods), self.method]
        return json.dumps(chosen, sort_keys=True)
