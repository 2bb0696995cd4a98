"""The HTML report of a job, from its outcomes and what lies in the store."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from farm.errors import CorruptArtifactError
from farm.runner import load_output
from farm.storage.layout import input_key
from farm.storage.store import MissingKeyError
from jobs.outcomes import DoneEdit, FailedEdit, network_passes, parse_outcome
from jobs.records import REPORT, JobFiles, JobSummary
from jobs.report_page import (
    Fact,
    Failure,
    FailureGroup,
    PageLink,
    ReportRow,
    ReportSummary,
    Timing,
    render_report,
)
from jobs.report_rows import Load, build_row, build_row_without_pictures, seconds_text
from jobs.terminal import write_file

PAGE_EDITS = 200
"""Edits on one page: 8 MB of scenes, or about 60 MB of photographs."""
PICTURED = 1000
"""Edits with pictures, if nothing else is said; all are in outcomes.csv and outcomes.jsonl."""
_EXAMPLES = 20


@dataclass(frozen=True)
class StoredOutcomes:
    """Outcomes of an outcomes.jsonl, one at a time."""

    path: Path

    def __iter__(self) -> Iterator[DoneEdit | FailedEdit]:
        with self.path.open("rb") as file:
            yield from map(parse_outcome, file)


def write_report(
    files: JobFiles,
    summary: JobSummary,
    outcomes: Iterable[DoneEdit | FailedEdit],
    file: Path | None,
    *,
    edits: int = PICTURED,
) -> str:
    """Put the pages into the store, and into files if one is named; the answer says where.

    Args:
        files: of the job.
        summary: of the job.
        outcomes: of the job; gone through once.
        file: where to write the first page too; the others lie beside it.
        edits: how many finished edits get pictures.
    """
    head, done = _digest(summary, outcomes, edits)
    pages = max(1, -(-len(done) // PAGE_EDITS))
    stem, suffix = (file.stem, file.suffix) if file is not None else ("report", ".html")
    for number in range(1, pages + 1):
        shown = done[(number - 1) * PAGE_EDITS : number * PAGE_EDITS]
        stored = _page(files, head, shown, number, pages, "report", ".html")
        files.put(_page_name("report", ".html", number), stored.encode())
        if file is not None:
            same_names = (stem, suffix) == ("report", ".html")
            page = (
                stored
                if same_names or pages == 1
                else _page(files, head, shown, number, pages, stem, suffix)
            )
            write_file(file.with_name(_page_name(stem, suffix, number)), page.encode())
    return str(file) if file is not None else files.place(REPORT)


def _page_name(stem: str, suffix: str, number: int) -> str:
    return f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"


def _page(
    files: JobFiles,
    head: ReportSummary,
    shown: Sequence[bytes],
    number: int,
    pages: int,
    stem: str,
    suffix: str,
) -> str:
    links = tuple(
        PageLink(str(n), _page_name(stem, suffix, n), n == number) for n in range(1, pages + 1)
    )
    page = replace(
        head,
        failures=head.failures if number == 1 else (),
        pages=links if pages > 1 else (),
        first=(number - 1) * PAGE_EDITS + 1,
    )
    return render_report(page, _rows(files, map(parse_outcome, shown)))


def _digest(
    summary: JobSummary, outcomes: Iterable[DoneEdit | FailedEdit], edits: int
) -> tuple[ReportSummary, list[bytes]]:
    """The head of every page, and the finished edits to show, as text."""
    done: list[bytes] = []
    failures: dict[str, list[FailedEdit]] = defaultdict(list)
    for outcome in outcomes:
        if isinstance(outcome, FailedEdit):
            if len(failures[outcome.kind]) < _EXAMPLES:
                failures[outcome.kind].append(outcome)
        elif len(done) < edits:
            done.append(outcome.model_dump_json().encode())
    head = ReportSummary(
        title=summary.manifest,
        subtitle=_subtitle(summary),
        tiles=_tiles(summary),
        provenance=_provenance(summary),
        failures=tuple(
            FailureGroup(kind, summary.totals["failures"][kind], _examples(group))
            for kind, group in sorted(failures.items())
        ),
        done=summary.totals["done"],
        shown=len(done),
        version=metadata.version("editfarm"),
        written=f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        stages=_stages(summary),
    )
    return head, done


def _stages(summary: JobSummary) -> tuple[Timing, ...]:
    """Wall time of all new edits by stage, with its share."""
    spent: dict[str, float] = summary.totals.get("stage_seconds", {})
    whole = sum(spent.values())
    return tuple(
        Timing(name.replace("_", " "), seconds_text(seconds), round(100 * seconds / whole))
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
        if seconds > 0
    )


def _rows(files: JobFiles, done: Iterable[DoneEdit | FailedEdit]) -> Iterator[ReportRow]:
    for outcome in done:
        assert isinstance(outcome, DoneEdit)
        try:
            yield build_row(outcome, _loader(files, outcome))
        except (MissingKeyError, CorruptArtifactError):
            yield build_row_without_pictures(outcome)  # deleted since


def _loader(files: JobFiles, outcome: DoneEdit) -> Load:
    result = outcome.result

    def load(name: str) -> bytes:
        if name == "input":
            return files.store.get(input_key(files.tenant, result.provenance.image_digest))
        if name == "truth":
            assert outcome.truth is not None
            return files.store.get(outcome.truth)
        return load_output(files.store, result, name)

    return load


def _examples(failures: Iterable[FailedEdit]) -> tuple[Failure, ...]:
    return tuple(Failure(f.name, f.line, f.message) for f in failures)


def _subtitle(summary: JobSummary) -> str:
    return f"{summary.started} · model set {summary.model_set} · job {summary.job}"


def _tiles(summary: JobSummary) -> tuple[Fact, ...]:
    totals = summary.totals
    passes = network_passes(totals["work"])
    tiles = [Fact("done", f"{totals['done']:,}"), Fact("failed", f"{totals['failed']:,}")]
    if totals["reused"]:
        tiles.append(Fact("of these in the store before", f"{totals['reused']:,}"))
    if totals["inversions_reused"]:
        tiles.append(Fact("inversions reused", f"{totals['inversions_reused']:,}"))
    return (
        *tiles,
        Fact("wall time", seconds_text(summary.seconds)),
        Fact("accelerator time", seconds_text(totals["accelerator_seconds"])),
        Fact("network passes", f"{passes:,}"),
        *([Fact("tried again", f"{totals['tried_again']:,}")] if totals.get("tried_again") else []),
        *(
            [Fact(f"left ({totals['stopped']})", f"{totals['left']:,}")]
            if totals.get("left")
            else []
        ),
    )


def _provenance(summary: JobSummary) -> tuple[Fact, ...]:
    totals = summary.totals
    return (
        Fact("command", summary.command),
        Fact("trainer processes", _listed(totals["trainer_pids"])),
        Fact("trainer machines", _listed(n[:12] for n in totals.get("trainer_nodes", []))),
        Fact("backbone processes", _listed(totals["backbone_pids"])),
        *(Fact("networks loaded", _networks(backbone)) for backbone in summary.backbones),
        Fact("versions", _listed(f"{n} {v}" for n, v in sorted(summary.versions.items()))),
        Fact("weights", _listed(f"{n} {d[:12]}" for n, d in sorted(summary.weights.items()))),
    )


def _networks(backbone: dict[str, Any]) -> str:
    sizes = _listed(f"{name} {n:,}" for name, n in backbone["parameters"].items())
    return f"process {backbone['pid']} on {backbone['device']}: {sizes} parameters"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"
