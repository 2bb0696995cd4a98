"""Tables with the fields of an `EditRequest` as columns: CSV with a header, and Parquet.

| column | holds |
|---|---|
| `image`, `source_prompt`, `target_prompt`, `id`, `seed`, … | as in a manifest of JSON lines |
| `parameters` | an object of the method's parameters; in CSV as JSON |
| `parameters.NAME` | one parameter; in CSV as JSON, or as plain text where it is none |
| `truth` | path of the true edited picture |

An empty cell is a field that is not given. Row 1 is the first below the header.
"""

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from farm.errors import InvalidManifestError, InvalidRequestError
from jobs.importers.csv_rows import Row, read_rows
from jobs.importers.options import ImportOptions
from jobs.manifests import BrokenLine, FirstLines, Line, line_of

_PARAMETERS = "parameters"
_ROWS_AT_ONCE = 256


def read_csv_table(path: Path, options: ImportOptions) -> Iterator[Line]:
    """All rows of a CSV file, one at a time.

    Raises:
        InvalidManifestError: the file cannot be read, or has no header.
    """
    first = FirstLines()
    for row in read_rows(path):
        yield _line(row.number, row.place, row, options, first)


def read_parquet(path: Path, options: ImportOptions) -> Iterator[Line]:
    """All rows of a Parquet file; some hundred in memory at once.

    Raises:
        InvalidManifestError: it is none.
    """
    parquet = importlib.import_module("pyarrow.parquet")  # 0.3 s that other forms need not pay
    errors = importlib.import_module("pyarrow").ArrowException
    first = FirstLines()
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                for values in batch.to_pylist():
                    number += 1
                    yield _line(number, f"row {number}", values, options, first)
    except (OSError, errors) as error:
        raise InvalidManifestError(
            f"cannot read the Parquet file {path}: {error}; check its path and its form"
        ) from error


def _line(
    number: int,
    place: str,
    row: Row | Mapping[str, Any],
    options: ImportOptions,
    first: FirstLines,
) -> Line:
    try:
        fields = _csv_fields(row) if isinstance(row, Row) else _fields(row)
        line = line_of(number, fields, options, place=place)
        first.refuse_second(line)
    except InvalidRequestError as error:
        message = error.message if error.message.startswith(place) else f"{place}: {error.message}"
        return BrokenLine(number, f"row-{number}", InvalidManifestError(message))
    return line


def _csv_fields(row: Row) -> dict[str, Any]:
    if row.problem is not None:
        raise InvalidManifestError(f"{row.place}: {row.problem}")
    cells: dict[str, Any] = {}
    for column, text in row.cells.items():
        if column and text.strip():
            cells[column] = _json_cell(column, text)
    return _fields(cells)


def _json_cell(column: str, text: str) -> Any:
    if column == _PARAMETERS:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise InvalidRequestError(
                f"parameters: {text!r:.80} is not JSON ({error.msg}); write an object such as "
                '{"tau_c": 0.4}, or a column parameters.tau_c'
            ) from error
    if column.startswith(f"{_PARAMETERS}."):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _fields(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields, with single parameters gathered."""
    fields: dict[str, Any] = {}
    single: dict[str, Any] = {}
    for column, value in cells.items():
        if value is None:
            continue
        parent, dot, name = column.partition(".")
        if dot and parent == _PARAMETERS:
            single[name] = value
        elif isinstance(value, dict):  # a struct of Parquet has every field in every row
            fields[column] = {name: each for name, each in value.items() if each is not None}
        else:
            fields[column] = value
    if single:
        given = fields.get(_PARAMETERS, {})
        fields[_PARAMETERS] = {**given, **single} if isinstance(given, dict) else given
    return fields
