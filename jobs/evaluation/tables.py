"""Figures for eyes: one arm by type, arms side by side, and what lies between them."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table


def types_table(summary: Mapping[str, Any]) -> Table:
    """All edits of an arm and each type; figures with their intervals."""
    return _table("figure", {"all": summary, **summary["by_type"]})


def arms_table(summaries: Mapping[str, Mapping[str, Any]]) -> Table:
    """All arms side by side; figures with their intervals."""
    return _table("figure", summaries)


def differences_table(against: str, compared: Mapping[str, Mapping[str, Any]]) -> Table:
    """Paired differences `against` - arm, arm by arm."""
    table = Table(f"{against} minus", *compared)
    names = dict.fromkeys(name for found in compared.values() for name in found)
    for name in names:
        if name != "by_type":
            table.add_row(name, *(_difference(found.get(name)) for found in compared.values()))
    return table


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{found['mean']:+.3g} [{found['low']:+.3g}, {found['high']:+.3g}]"


def _table(corner: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(corner, *columns)
    for name in dict.fromkeys(name for column in columns.values() for name in column["intervals"]):
        table.add_row(name, *_cells(name, columns.values()))
    table.add_row("edits", *(str(c["edits"]) for c in columns.values()))
    return table


def _cells(name: str, columns: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for column in columns:
        if column.get(name) is None:
            yield "-"
            continue
        low, high = column["intervals"][name]
        yield f"{column[name]:.3g} [{low:.3g}, {high:.3g}]"
