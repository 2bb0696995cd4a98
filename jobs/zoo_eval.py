"""Measure the zoo's networks on held-out seeds, at full size.

editfarm zoo eval --json out/zoo/eval.json
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from farm.runner import versions
from farm.zoo.measures.bench import Bench, Figures
from farm.zoo.measures.catalogue import Measure, check_lines, find_measures
from farm.zoo.measures.unrounded import write_unrounded
from farm.zoo.model_sets import file_digest
from farm.zoo.weights import SCENES_FOLDER
from jobs.bars import Told
from jobs.called import command_line
from jobs.console import print_table, say, write_file


def evaluate(
    measurement: Annotated[
        list[str] | None,
        typer.Argument(help="what to measure; by default all whose networks are there"),
    ] = None,
    networks: Annotated[Path, typer.Option(help="folder of networks")] = SCENES_FOLDER,
    cases: Annotated[int, typer.Option(min=2, help="prompts, scenes, edits of a type")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="held-out seed; any works")] = 1,
    unrounded: Annotated[
        Path | None, typer.Option(help="folder of training states: measure their fp32 weights too")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="figures as JSON")] = None,
    threads: Annotated[int, typer.Option(min=1, help="torch threads")] = 2,
) -> None:
    """Measure networks against the lines that they are to reach."""
    torch.set_num_threads(threads)
    told = Told()
    bench = Bench(networks, cases=cases, seed=seed, tell=told)
    chosen = find_measures(measurement or [], bench)
    started = time.monotonic()
    with told:
        record: dict[str, Any] = {"figures": _measure(chosen, bench)}
        record["lines"] = check_lines(record["figures"])
        if unrounded is not None:
            record["unrounded"] = _measure_unrounded(chosen, bench, unrounded)
    record["provenance"] = {
        "command": command_line(),
        "seed": seed,
        "cases": cases,
        "weights": _digests(networks),
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
        "wall_seconds": time.monotonic() - started,
    }
    if json_file is not None:
        write_file(json_file, json.dumps(record, indent=1).encode())
        say(f"figures: {json_file}")
    print_table(_table(record))


def _measure(measures: Mapping[str, Measure], bench: Bench) -> dict[str, Figures]:
    figures: dict[str, Figures] = {}
    for name, measure in measures.items():
        started = time.monotonic()
        figures[name] = measure.run(bench)
        say(f"{name}: {time.monotonic() - started:.0f} s")
    return figures


def _measure_unrounded(
    measures: Mapping[str, Measure], bench: Bench, states: Path
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="farm-fp32-") as folder:
        parts = write_unrounded(bench.networks, states, Path(folder))
        say(f"in fp32: {', '.join(parts)}")
        figures = _measure(measures, replace(bench, networks=Path(folder)))
    return {"parts": parts, "figures": figures, "lines": check_lines(figures)}


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*.safetensors"))
    }


def _table(record: Mapping[str, Any]) -> Table:
    """One row for every line; fp32 and held-out combinations beside."""
    lines: list[dict[str, Any]] = record["lines"]
    exact = {line["figure"]: line["mean"] for line in record.get("unrounded", {}).get("lines", [])}
    table = Table("figure", "mean", "held-out combinations", "cases", "line", "met")
    if exact:
        table.add_column("fp32")
    for line in lines:
        held_out = _held_out(record["figures"], line["figure"])
        row = [
            line["figure"],
            f"{line['mean']:.3f} [{line['low']:.3f}, {line['high']:.3f}]",
            "-" if held_out is None else f"{held_out['mean']:.3f} ({held_out['cases']})",
            str(line["cases"]),
            line["line"],
            "yes" if line["met"] else "no",
        ]
        table.add_row(*row, *([f"{exact[line['figure']]:.3f}"] if exact else []))
    return table


def _held_out(figures: Mapping[str, Any], figure: str) -> Mapping[str, Any] | None:
    """The same figure on combinations that no training saw, where it is reported apart."""
    *path, group, name = figure.split("/")
    at: Any = figures
    for key in path:
        at = at[key]
    apart = at.get("held_out") if group == "all" else None
    return None if apart is None else apart[name]
