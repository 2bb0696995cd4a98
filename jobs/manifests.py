"""Manifests: one edit a line as JSON, read as a stream.

A line holds the fields of an `EditRequest`, and may name the true edited picture as `truth`, which
only the report shows. Blank lines and a byte-order mark are allowed. Paths are relative to the
manifest's folder. A broken line is an outcome with its number; the other lines are unharmed.
Files in other forms become the same lines: see `jobs.importers`.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from farm.errors import InvalidManifestError, InvalidRequestError
from farm.requests import EditRequest, parse_request
from jobs.import_options import ImportOptions

_MAX_LINE_BYTES = 64 * 1024


@dataclass(frozen=True)
class ManifestLine:
    """A line that is a request.

    Attributes:
        number: 1 for the first line of the file.
        name: the request's id, or "line-<number>".
        truth: path of the true edited picture, for the report only.
        place: how errors name the line, where its number alone does not say it.
        variant: number among the edits that were made of this line (`jobs.expanding`).
    """

    number: int
    name: str
    request: EditRequest
    truth: str | None
    place: str | None = None
    variant: int = 0

    def placed(self, error: InvalidRequestError) -> InvalidRequestError:
        """The same error, saying where in the file it is."""
        if self.place is None:
            return error
        return type(error)(f"{self.place}: {error.message}")


@dataclass(frozen=True)
class BrokenLine:
    """A line that is none, and why."""

    number: int
    name: str
    error: InvalidManifestError
    variant: int = 0


Line: TypeAlias = ManifestLine | BrokenLine


def read_manifest(path: Path, options: ImportOptions) -> Iterator[Line]:
    """All lines that are not blank, in order; one at a time in memory.

    Args:
        path: the manifest.
        options: model set, method and parameters of lines that name none. A job has one model
            set, so another one is an error.

    Raises:
        InvalidManifestError: the file cannot be read.
    """
    first = FirstLines()
    try:
        with path.open("rb") as file:
            for number, data in enumerate(_raw_lines(file), start=1):
                if not data.strip():
                    continue
                try:
                    line = _parse(number, data, options)
                    first.refuse_second(line)
                except InvalidRequestError as error:
                    message = f"line {number}: {error.message}"
                    yield BrokenLine(number, f"line-{number}", InvalidManifestError(message))
                else:
                    yield line
    except OSError as error:
        raise InvalidManifestError(
            f"cannot read the manifest {path}: {error.strerror}; check its path"
        ) from error


def _raw_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines without their byte-order mark; of an over-long one only what shows that it is."""
    first = True
    while data := file.readline(_MAX_LINE_BYTES + 2):
        kept = data
        while len(data) > _MAX_LINE_BYTES and not data.endswith(b"\n"):
            data = file.readline(_MAX_LINE_BYTES + 2)
        yield kept.removeprefix(codecs.BOM_UTF8) if first else kept
        first = False


def _parse(number: int, data: bytes, options: ImportOptions) -> ManifestLine:
    if len(data.rstrip(b"\r\n")) > _MAX_LINE_BYTES:
        raise InvalidRequestError(
            f"longer than {_MAX_LINE_BYTES // 1024} KiB: name the image by its path"
        )
    return line_of(number, _json_object(data), options)


def line_of(
    number: int,
    fields: dict[str, Any],
    options: ImportOptions,
    *,
    place: str | None = None,
) -> ManifestLine:
    """A line from its fields; see `read_manifest`.

    Raises:
        InvalidRequestError: or one of its children, saying what to change.
    """
    truth = fields.pop("truth", None)
    if truth is not None and not (isinstance(truth, str) and truth):
        raise InvalidRequestError(f"truth: the path of a picture is expected, found {truth!r:.80}")
    found = fields.setdefault("model_set", options.model_set)
    if found != options.model_set:
        raise InvalidRequestError(
            f"model_set: {found!r:.80} in a job that runs {options.model_set!r}; start it with "
            "--model-set, or put the line into a manifest of its own"
        )
    own = fields.get("parameters", {})
    if options.parameters and isinstance(own, dict):
        fields["parameters"] = {**options.parameters, **own}
    if options.method is not None:
        fields.setdefault("method", options.method)
    request = parse_request(fields)
    return ManifestLine(number, request.id or f"{_kind(place)}-{number}", request, truth, place)


def _kind(place: str | None) -> str:
    return "line" if place is None else "row"


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"byte {error.start + 1} is not UTF-8; save as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"not JSON ({error.msg} at column {error.colno}): one JSON object a line is expected"
        ) from error
    except RecursionError as error:
        raise InvalidRequestError("nested too deeply: one flat JSON object is expected") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"a JSON object is expected, found {value!r:.80}")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(f"{twice}: given twice; keep one")
    return fields


@dataclass
class FirstLines:
    """Where each id was met first: an id names one edit of a manifest."""

    _lines: dict[str, int] = field(default_factory=dict[str, int])

    def refuse_second(self, line: ManifestLine) -> None:
        """Note the line's id.

        Raises:
            InvalidRequestError: another line has it.
        """
        if line.request.id is None:
            return
        first = self._lines.setdefault(line.request.id, line.number)
        if first != line.number:
            where = "line" if line.place is None else "row"
            raise InvalidRequestError(
                f"id: {line.request.id!r} is already the id of {where} {first}; give this one "
                "another"
            )
