"""CSV files row by row, where every error says which row and which column.

A file is read as a stream. A byte-order mark, blank rows and quoted line breaks are allowed. What
is wrong with a row is said when its cells are asked for, so that other rows are unharmed.
"""

import codecs
import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from farm.errors import InvalidManifestError

_MAX_LINE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Row:
    """One record below the header.

    Attributes:
        number: 1 for the first record below the header.
        line: of the file, where the record begins.
        columns: all that the header names.
        cells: by column; the row may have fewer than the header.
        problem: what is wrong with the row as a whole.
    """

    number: int
    line: int
    columns: Sequence[str]
    cells: Mapping[str, str]
    problem: str | None = None

    @property
    def place(self) -> str:
        return f"row {self.number} (line {self.line})"

    def cell(self, column: str, expected: str) -> str:
        """The text of a cell.

        Raises:
            InvalidManifestError: the file has no such column, or the row ends before it.
        """
        if self.problem is not None:
            raise InvalidManifestError(f"{self.place}: {self.problem}")
        if column not in self.columns:
            found = ", ".join(name or "(unnamed)" for name in self.columns)
            raise InvalidManifestError(
                f"{self.place}, column {column}: the file has no such column, it has {found}; "
                f"expected {expected}"
            )
        if column not in self.cells:
            raise InvalidManifestError(
                f"{self.place}, column {column}: the row has only {len(self.cells)} cells and ends "
                f"before it; expected {expected}"
            )
        return self.cells[column]

    def wrong(self, column: str, found: str, expected: str) -> InvalidManifestError:
        """The error of a cell."""
        return InvalidManifestError(
            f"{self.place}, column {column}: found {found}, expected {expected}"
        )


def read_rows(path: Path) -> Iterator[Row]:
    """All rows that are not blank.

    Raises:
        InvalidManifestError: the file cannot be read, has no header, or one with a column twice.
    """
    try:
        with path.open("rb") as file:
            lines = _Lines(file)
            reader = csv.reader(lines)
            columns = _header(path, reader)
            number = 0
            while (record := _next(reader, lines)) is not None:
                if any(cell.strip() for cell in record.cells):
                    number += 1
                    yield _row(number, record, columns)
    except OSError as error:
        raise InvalidManifestError(
            f"cannot read the CSV file {path}: {error.strerror}; check its path"
        ) from error


@dataclass(frozen=True)
class _Record:
    line: int
    cells: Sequence[str]
    problem: str | None


class _Lines:
    """Lines of a file as text; remembers why a line was not given as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline(_MAX_LINE_BYTES + 2)
        if not data:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if len(data.rstrip(b"\r\n")) > _MAX_LINE_BYTES:
            while not data.endswith(b"\n") and data:
                data = self._file.readline(_MAX_LINE_BYTES)
            self.problem = f"longer than {_MAX_LINE_BYTES // 1024} KiB: name the image by its path"
            return "?\n"
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            self.problem = (
                f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8"
            )
            return data.decode(errors="replace")


def _next(reader: Iterator[list[str]], lines: _Lines) -> _Record | None:
    first, lines.problem = lines.number + 1, None
    try:
        cells = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        return _Record(
            first, ["?"], f"not CSV ({error}): put cells with quotes or commas in quotes"
        )
    return _Record(first, cells, lines.problem)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        columns = [name.strip() for name in next(reader)]
    except (StopIteration, csv.Error) as error:
        raise InvalidManifestError(f"{path} has no header: a CSV file begins with one") from error
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise InvalidManifestError(
            f"{path}: the header names {', '.join(sorted(twice))} twice; keep one of each"
        )
    return columns


def _row(number: int, record: _Record, columns: Sequence[str]) -> Row:
    problem = record.problem
    if problem is None and len(record.cells) > len(columns):
        problem = (
            f"found {len(record.cells)} cells, expected {len(columns)} as in the header; put cells "
            "that hold commas in quotes"
        )
    cells = dict(zip(columns, record.cells, strict=False))
    return Row(number, record.line, columns, cells, problem)
