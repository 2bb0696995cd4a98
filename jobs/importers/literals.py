"""Cells that hold Python literals: read as data, never evaluated."""

import ast
import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeGuard

from jobs.importers.csv_rows import Row

_MAX_CELL = 4096


def literal(row: Row, column: str, expected: str) -> Any:
    """The value of a cell: numbers, strings, tuples, lists, dicts, None; nothing is ever called.

    Raises:
        InvalidManifestError: the cell is missing or holds no literal.
    """
    text = row.cell(column, expected).strip()
    if len(text) > _MAX_CELL:
        raise row.wrong(column, f"{len(text):,} characters", expected)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes in strings
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        shown = repr(text[:80]) if text else "an empty cell"
        raise row.wrong(column, f"{shown}, which is no literal", expected) from error


def is_number(value: Any) -> TypeGuard[float]:
    """A finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 10**300 and not math.isnan(value)


def listed(value: Any) -> Sequence[Any]:
    """What a list or tuple holds; anything else stands for itself alone."""
    return value if isinstance(value, list | tuple) else [value]
