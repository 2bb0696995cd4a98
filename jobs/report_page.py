"""The report as one HTML page that refers to nothing outside itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobs.report_rows import Fact, ReportRow


@dataclass(frozen=True)
class Failure:
    name: str
    line: int
    message: str


@dataclass(frozen=True)
class FailureGroup:
    """Failed edits of one kind of error, with some of them as examples."""

    kind: str
    count: int
    examples: tuple[Failure, ...]


@dataclass(frozen=True)
class ReportSummary:
    """The head of the page: figures of the whole job, and where they come from."""

    title: str
    subtitle: str
    tiles: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
    failures: tuple[FailureGroup, ...]
    done: int
    shown: int
    """Finished edits with a row of their own."""
    version: str
    written: str


_ENVIRONMENT = Environment(
    loader=PackageLoader("jobs"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render_report(summary: ReportSummary, rows: Iterable[ReportRow]) -> str:
    """The page; rows are taken one at a time, so that no more than one edit is decoded at once."""
    return _ENVIRONMENT.get_template("report.html.j2").render(summary=summary, rows=rows)
