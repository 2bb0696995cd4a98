"""Write the HTML report of a job anew, from what lies in the store.

editfarm report --store out/demo/store
python -m jobs.report --store s3://bucket/edits --job 0123456789abcdef --file report.html
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.runner import load_output
from farm.storage.layout import input_key
from farm.storage.opening import open_store
from jobs.console import FarmCommand, JsonOption, command_app, print_json, say, write_file
from jobs.outcomes import DoneEdit, FailedEdit, network_passes, parse_outcome
from jobs.records import OUTCOMES, REPORT, TENANT, JobFiles, JobSummary, find_job
from jobs.report_page import (
    Fact,
    Failure,
    FailureGroup,
    ReportRow,
    ReportSummary,
    render_report,
)
from jobs.report_rows import Load, build_row, seconds_text

_PICTURED = 200
"""Edits with pictures: 8 MB of scenes, or about 60 MB of photographs."""
_EXAMPLES = 20

app = command_app()


@app.command(cls=FarmCommand)
def report(
    store: Annotated[str, typer.Option(help="Path, file:// or s3:// of the job's store.")],
    job: Annotated[str | None, typer.Option(help="Which job, where there are several.")] = None,
    file: Annotated[Path | None, typer.Option(help="Also write the page here.")] = None,
    tenant: Annotated[str, typer.Option(help="Whose job.")] = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a job anew, from what lies in the store."""
    files = find_job(open_store(store), tenant, job)
    outcomes = map(parse_outcome, files.get(OUTCOMES).splitlines())
    place = write_report(files, files.summary(), outcomes, file)
    if as_json:
        print_json({"job": files.job, "report": place})
    else:
        say(f"report: {place}")


def write_report(
    files: JobFiles,
    summary: JobSummary,
    outcomes: Iterable[DoneEdit | FailedEdit],
    file: Path | None,
) -> str:
    """Put the page into the store, and into a file if one is named; the answer says where it is."""
    page = build_page(files, summary, outcomes).encode()
    files.put(REPORT, page)
    if file is None:
        return files.place(REPORT)
    write_file(file, page)
    return str(file)


def build_page(
    files: JobFiles, summary: JobSummary, outcomes: Iterable[DoneEdit | FailedEdit]
) -> str:
    """The page of a job; one edit's pictures are decoded at a time."""
    done: list[DoneEdit] = []
    failures: dict[str, list[FailedEdit]] = defaultdict(list)
    for outcome in outcomes:
        if isinstance(outcome, FailedEdit):
            if len(failures[outcome.kind]) < _EXAMPLES:
                failures[outcome.kind].append(outcome)
        elif len(done) < _PICTURED:
            done.append(outcome)
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
    )
    return render_report(head, _rows(files, done))


def _rows(files: JobFiles, done: Iterable[DoneEdit]) -> Iterator[ReportRow]:
    for outcome in done:
        yield build_row(outcome, _loader(files, outcome))


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
    )


def _provenance(summary: JobSummary) -> tuple[Fact, ...]:
    totals = summary.totals
    return (
        Fact("command", summary.command),
        Fact("trainer processes", _listed(totals["trainer_pids"])),
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


if __name__ == "__main__":
    app()
