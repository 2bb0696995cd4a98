"""The report as one HTML page: the plain values that it shows, and their rendering."""

from collections.abc import Iterable
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Fact:
    label: str
    value: str


@dataclass(frozen=True)
class Word:
    text: str
    changed: bool


@dataclass(frozen=True)
class Picture:
    label: str
    uri: str
    """A `data:` URI: the report refers to nothing outside itself."""
    pixelated: bool


@dataclass(frozen=True)
class Timing:
    stage: str
    seconds: str
    percent: int
    """Share of the edit's whole time."""


@dataclass(frozen=True)
class ReportRow:
    """One finished edit."""

    name: str
    edit_id: str
    tags: tuple[str, ...]
    source: tuple[Word, ...]
    target: tuple[Word, ...]
    pictures: tuple[Picture, ...]
    figures: tuple[Fact, ...]
    timings: tuple[Timing, ...]
    work: tuple[Fact, ...]


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
class PageLink:
    """Another page of a report that is too long for one; all pages lie in one folder."""

    label: str
    file: str
    current: bool


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
    stages: tuple[Timing, ...] = ()
    """Wall time of all new edits by stage."""
    pages: tuple[PageLink, ...] = ()
    """None where one page holds all."""
    first: int = 1
    """Number of the first finished edit on this page."""


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
