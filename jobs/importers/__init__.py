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
from jobs.importers.learnable_regions import IMAGES_FILE, read_learnable_regions
from jobs.importers.options import ImportOptions
from jobs.importers.pie import MAPPING_FILE, read_pie
from jobs.importers.style_diffusion import read_style_diffusion
from jobs.manifests import Line, read_manifest

Read: TypeAlias = Callable[[Path, ImportOptions], Iterator[Line]]


def _read_jsonl(path: Path, options: ImportOptions) -> Iterator[Line]:
    return read_manifest(path, model_set=options.model_set, parameters=options.parameters)


@dataclass(frozen=True)
class Form:
    """A form of files.

    Attributes:
        read: its importer.
        has_cases: whether its rows have case numbers to choose from.
        file_in_folder: the file to read where a folder is named.
    """

    read: Read
    has_cases: bool = False
    file_in_folder: str | None = None


JSONL = "jsonl"
FORMS: Mapping[str, Form] = {
    JSONL: Form(_read_jsonl),
    "style-diffusion": Form(read_style_diffusion, has_cases=True),
    "learnable-regions": Form(read_learnable_regions, file_in_folder=IMAGES_FILE),
    "pie": Form(read_pie, file_in_folder=MAPPING_FILE),
}


@dataclass(frozen=True)
class Reading:
    """How a file is to be read.

    Attributes:
        form: one of `FORMS`.
        parameters: of the method, for lines that do not set them.
        from_case: the first case that counts.
        end_case: the case before which to stop.
    """

    form: str = JSONL
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    from_case: int | None = None
    end_case: int | None = None

    def check(self) -> None:
        """Refuse what cannot be, before anything is read.

        Raises:
            InvalidRequestError: an unknown form, or a choice of cases that it does not have.
        """
        if self.form not in FORMS:
            raise InvalidRequestError(
                f"no form {self.form!r} of files: --from takes {', '.join(FORMS)}"
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
        options = ImportOptions(model_set, self.parameters, self.from_case, self.end_case)
        return FORMS[self.form].read(path, options)

    def text(self) -> str:
        """What tells this reading from others of the same file; empty for a manifest as it is."""
        if self == Reading():
            return ""
        chosen = [self.form, dict(self.parameters), self.from_case, self.end_case]
        return json.dumps(chosen, sort_keys=True)
