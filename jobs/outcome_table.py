"""outcomes.csv: one row an edit, for spreadsheets."""

import csv
from collections.abc import Iterable
from pathlib import Path

from jobs.outcomes import DoneEdit, FailedEdit, network_passes

_COLUMNS = (
    *("line", "variant", "name", "status", "method", "seed", "source_prompt", "target_prompt"),
    *("edit_id", "reused", "seconds", "accelerator_seconds", "network_passes", "tries"),
    *("inversion_reused", "error", "message"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(path: Path, outcomes: Iterable[DoneEdit | FailedEdit]) -> None:
    """Write all outcomes in their order, one at a time."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        for outcome in outcomes:
            writer.writerow({name: _cell(value) for name, value in _row(outcome).items()})


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(outcome: DoneEdit | FailedEdit) -> dict[str, object]:
    row: dict[str, object] = {
        "line": outcome.line,
        "variant": outcome.variant,
        "name": outcome.name,
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "tries": outcome.tries,
    }
    if outcome.request is not None:
        row |= outcome.request.model_dump(
            include={"method", "seed", "source_prompt", "target_prompt"}
        )
    if isinstance(outcome, FailedEdit):
        return row | {"error": outcome.kind, "message": outcome.message}
    provenance = outcome.result.provenance
    return row | {
        "edit_id": outcome.result.edit_id,
        "reused": outcome.result.reused,
        "accelerator_seconds": round(provenance.accelerator_seconds, 3),
        "network_passes": network_passes(provenance.work),
        "inversion_reused": provenance.stage_reused,
    }
