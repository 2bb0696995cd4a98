"""Records of evaluations as tables of a Markdown page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.errors import InvalidRequestError
from farm.metrics.pie_columns import column_of
from jobs.evaluation.auto import chosen_shares
from jobs.evaluation.published import PUBLISHED
from jobs.importers.pie import CATEGORIES

NOT_MEASURED = "Not measured yet."
MISSED = "**missed**"
_NAMES = {
    "success": "success",
    "asked": "asked",
    "outside_psnr": "outside PSNR, dB",
    "bound_psnr": "bound there, dB",
    "inside_psnr": "inside PSNR, dB",
    "region_iou": "region IoU",
    "pointing": "pointing",
    "reconstruction_psnr": "reconstruction, dB",
    "reconstruction_bound_psnr": "autoencoder alone, dB",
    "accelerator_seconds_per_edit": "accelerator seconds an edit",
}
"""Figures that every table has, with what they are called."""
_UNSHOWN = {"seconds_per_edit"}
_COMPARED = ("success", "asked", "outside_psnr")


@dataclass(frozen=True)
class Record:
    """A file that `editfarm evaluate --json` wrote.

    Attributes:
        name: of the file, without its ending.
        data: what is in it.
    """

    name: str
    data: Mapping[str, Any]

    @property
    def is_pie(self) -> bool:
        return self.data.get("benchmark") == "pie"

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.data["provenance"]

    @property
    def method(self) -> str:
        """Of the default arm; records of before say it in their command alone."""
        named = self.provenance.get("method")
        return self.name if named is None else str(named)

    @property
    def arms(self) -> dict[str, Mapping[str, Any]]:
        """All arms of scenes by their names; the default one has its method's."""
        default = {key: self.data[key] for key in ("summary", "edits")}
        return {self.method: {**default, "method": self.method}, **self.data["arms"]}


def read_records(folder: Path) -> list[Record]:
    """All evaluations in a folder, by name; other files are none of ours.

    Raises:
        InvalidRequestError: a file is no JSON, or there is no folder.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"no folder {folder}: run `editfarm evaluate --json` into it")
    found: list[Record] = []
    for path in sorted(folder.glob("*.json")):
        try:
            data: Any = json.loads(path.read_bytes())
        except ValueError as error:
            raise InvalidRequestError(f"{path} is not JSON ({error}): write it again") from error
        is_one = isinstance(data, dict) and "provenance" in data
        if is_one and (data.get("benchmark") == "pie" or {"summary", "edits"} <= data.keys()):
            found.append(Record(path.stem, data))
    return found


def types_table(record: Record, lines: Mapping[str, float] | None = None) -> str:
    """Figures of the default arm, all edits and each type, with the lines that were set."""
    summary = record.data["summary"]
    columns = {"all": summary, **summary["by_type"]}
    heads = [f"{name} ({column['edits']})" for name, column in columns.items()]
    rows = [["", *heads]]
    shown = [n for n in summary["intervals"] if n not in _UNSHOWN]
    for name in [*_NAMES, *(n for n in shown if n not in _NAMES)]:
        if name not in summary["intervals"]:
            continue
        cells = [_interval(columns["all"], name)]
        cells += [_interval(c, name) for n, c in columns.items() if n != "all"]
        rows.append([_NAMES.get(name, name), *cells])
        if name == "success" and lines:
            rows.append(["– line", *(_line(lines.get(n), columns[n]) for n in columns)])
    return _table(rows)


def arms_table(records: Iterable[Record]) -> str:
    """Every arm of every record of scenes: one row each, with success by type."""
    rows: list[list[str]] = []
    kinds: list[str] = []
    scenes = [record for record in records if not record.is_pie]
    for record in scenes:
        for arm in record.arms.values():
            kinds += [kind for kind in arm["summary"]["by_type"] if kind not in kinds]
    for record in scenes:
        for name, arm in record.arms.items():
            summary = arm["summary"]
            by_type = summary["by_type"]
            figures = ["success", *_COMPARED[1:], "inside_psnr", "region_iou"]
            cells = [_interval(summary, figure) for figure in figures]
            cells.append(_number(summary.get("accelerator_seconds_per_edit")))
            cells += [_number(by_type[k]["success"]) if k in by_type else "" for k in kinds]
            rows.append([name, record.name, str(summary["edits"]), *cells])
    if not rows:
        return NOT_MEASURED
    figures = ["success", "asked", "outside, dB", "inside, dB", "region IoU", "acc. s"]
    head = ["arm", "file", "edits", *figures, *(f"success: {kind}" for kind in kinds)]
    return _table([head, *rows])


def differences_table(record: Record) -> str:
    """What lies between each method of a record and other arms, paired, with intervals.

    Two methods are compared once, and a method with its own variants alone: how it stands to those
    of others says little, and a run of three methods with theirs has seventy such pairs.
    """
    found = {record.method: record.data["differences"], **record.data.get("differences_of", {})}
    head = ["method", "minus", *(_NAMES[n] for n in _COMPARED), "success by type"]
    rows: list[list[str]] = []
    told: set[frozenset[str]] = set()
    for method, others in found.items():
        for name, compared in others.items():
            named = record.method if name == "default" else name
            pair = frozenset((method, named))
            arm = record.arms[named]
            if pair in told or arm["method"] not in (named, record.arms[method]["method"]):
                continue
            told.add(pair)
            by_type = ", ".join(
                f"{kind} {_signed(own['success'])}"
                for kind, own in compared["by_type"].items()
                if "success" in own
            )
            cells = [_difference(compared.get(figure)) for figure in _COMPARED]
            rows.append([method, named, *cells, by_type])
    return _table([head, *rows]) if rows else NOT_MEASURED


def choice_table(record: Record, name: str = "auto") -> str:
    """What was chosen, by type, beside the best single method of the same run."""
    arm = record.arms.get(name)
    if arm is None:
        return NOT_MEASURED
    methods = {n: a for n, a in record.arms.items() if n == a["method"] and n != name}
    columns = ["all", *arm["summary"]["by_type"]]

    def success(one: Mapping[str, Any], column: str) -> float:
        summary = one["summary"]
        return (summary if column == "all" else summary["by_type"][column])["success"]

    rows = [["", *columns], [name, *(_number(success(arm, c)) for c in columns)]]
    rows += [[n, *(_number(success(a, c)) for c in columns)] for n, a in methods.items()]
    groups = {c: [e for e in arm["edits"] if c in ("all", e["type"])] for c in columns}
    shares = {c: chosen_shares(group) for c, group in groups.items()}
    for method in shares["all"]:
        rows.append([f"share of {method}", *(_number(shares[c].get(method)) for c in columns)])
    return _table(rows)


def pie_table(record: Record) -> str:
    """Columns of PIE-Bench of each arm, over all categories and by category."""
    rows: list[list[str]] = []
    names = list(dict.fromkeys(n for arm in record.data["arms"].values() for n in arm["figures"]))
    for arm_name, arm in record.data["arms"].items():
        for key, own in arm["categories"].items():
            label = "all" if key == "all" else CATEGORIES[key]
            cells = [_scaled(name, own.get(name)) for name in names]
            rows.append([arm_name, label, f"{own['edits']:.0f}", *cells])
    return _table([["arm", "category", "edits", *map(_title, names)], *rows])


def published_table() -> str:
    """The rows that others published."""
    head = ["inversion", "editor", "structure", "PSNR", "LPIPS", "MSE", "SSIM"]
    head += ["CLIP whole", "CLIP edited", "ImageReward", "source"]
    rows = [
        [row.inversion, row.editor, *("" if n is None else f"{n:.2f}" for n in row[2:10]), row[10]]
        for row in PUBLISHED
    ]
    return _table([head, *rows])


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Shares with three places and without their zero, other numbers with one place."""
    if value is None:
        return "–"
    if abs(value) < 1.0005:
        return f"{value:.3f}".replace("0.", ".", 1)
    return f"{value:.1f}"


def _interval(summary: Mapping[str, Any], name: str) -> str:
    if summary.get(name) is None:
        return "–"
    low, high = summary["intervals"][name]
    return f"{_number(summary[name])} [{_number(low)}, {_number(high)}]"


def _line(line: float | None, column: Mapping[str, Any]) -> str:
    if line is None:
        return ""
    return f"≥ {_number(line)}" + ("" if column["success"] >= line else f": {MISSED}")


def _signed(found: Mapping[str, float]) -> str:
    mean = found["mean"]
    return ("+" if mean >= 0 else "−") + _number(abs(mean))


def _difference(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    low, high = ({"mean": found[name]} for name in ("low", "high"))
    text = f"{_signed(found)} [{_signed(low)}, {_signed(high)}]"
    return f"**{text}**" if found["low"] > 0 else text


def _scaled(name: str, value: float | None) -> str:
    column = column_of(name)
    return "–" if value is None else f"{value * (column.scale if column else 1):.2f}"


def _title(name: str) -> str:
    plain, _, network = name.partition("[")
    column = column_of(name)
    title = column.title if column else plain.replace("_", " ")
    return f"{title} ({network.removesuffix(']')})" if network else title
