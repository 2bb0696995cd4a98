"""Eight edits at once through one backbone against the same eight one after the other.

    python -m benchmarks.concurrent_edits --json out/bench/concurrent_edits.json

One run, one farm with one backbone, which some short edits have warmed; each round into an empty
store of its own, so nothing is reused. About three minutes on two cores. The figure is the ratio,
serial over concurrent: what sharing one backbone is worth.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.edits import open_model_set_farm, run_edits
from actors.farm_session import FarmSession
from actors.local import local_ray
from farm.errors import EditFailedError, FarmError
from farm.images import decode_image, encode_png
from farm.metrics.psnr import psnr
from farm.results import EditResult
from farm.runner import PreparedEdit, load_output, prepare
from farm.storage.local import LocalStore
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.scenes.edits import edit_truth, sample_edits
from farm.zoo.scenes.requests import edit_name, edit_request
from jobs.console import FarmCommand, check_file, command_app, print_json, say, write_file

TENANT = "default"
_WARM_SEED = 999
_WARM = {"num_steps": 2, "inner_steps": 1}
_EQUAL_DB = 99.0  # stands for identical pictures, which have no finite PSNR

app = command_app()


@dataclass(frozen=True)
class Round:
    """The same edits, run in one way."""

    seconds: float
    mean_batch: float
    """Calls per batch of the backbone."""
    busy_share: float
    """Of the time, for which the backbone computed."""
    work: Mapping[str, int]
    pictures: Mapping[str, bytes]


def prepared_edits(
    models: ModelSet, number: int, seed: int, parameters: dict[str, Any]
) -> list[tuple[str, PreparedEdit]]:
    """Edits of as many different scenes, by name."""
    found: list[tuple[str, PreparedEdit]] = []
    for n, edit in enumerate(sample_edits(number, seed, ("colour", "background")), start=1):
        name = edit_name(edit, n)
        request = edit_request(edit, name, model_set=models.name, parameters=parameters)
        found.append(
            (name, prepare(request, encode_png(edit_truth(edit).source.images[0]), models))
        )
    return found


def run_round(farm: FarmSession, edits: list[tuple[str, PreparedEdit]], in_flight: int) -> Round:
    """All edits into an empty store.

    Raises:
        FarmError: as the first edit that failed.
    """
    results: dict[str, EditResult] = {}
    (before,) = farm.stats()
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        started = time.monotonic()
        for name, outcome in run_edits(farm, edits, store, tenant=TENANT, in_flight=in_flight):
            if isinstance(outcome, FarmError):
                raise outcome
            results[name] = outcome
            say(f"{in_flight} at once: {name} {time.monotonic() - started:.1f} s")
        seconds = time.monotonic() - started
        _expect_no_reuse(results.values())
        pictures = {n: load_output(store, result, "edited.png") for n, result in results.items()}
    (after,) = farm.stats()
    return Round(
        seconds=seconds,
        mean_batch=(after.items - before.items) / (after.batches - before.batches),
        busy_share=(after.busy_seconds - before.busy_seconds) / seconds,
        work=_summed(result.provenance.work for result in results.values()),
        pictures=pictures,
    )


def _expect_no_reuse(results: Iterable[EditResult]) -> None:
    reused = [r.edit_id for r in results if r.reused or not r.provenance.stages_made]
    if reused:
        raise EditFailedError(f"{', '.join(reused)}: found in a store that was to be empty")


def _summed(works: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for work in works:
        for name, amount in work.items():
            total[name] = total.get(name, 0) + amount
    return total


def figures_of(concurrent: Round, serial: Round) -> dict[str, float | int]:
    """The flat figures of two rounds of the same edits."""
    equal = [_psnr(concurrent.pictures[name], picture) for name, picture in serial.pictures.items()]
    figures: dict[str, float | int] = {
        "edits": len(equal),
        "ratio": round(serial.seconds / concurrent.seconds, 3),
        "lowest_psnr_between": round(min(equal), 1),
        "cores": os.cpu_count() or 1,
    }
    for name, one in (("concurrent", concurrent), ("serial", serial)):
        figures[f"{name}_seconds"] = round(one.seconds, 2)
        figures[f"{name}_mean_batch"] = round(one.mean_batch, 2)
        figures[f"{name}_busy_share"] = round(one.busy_share, 3)
        figures[f"{name}_unet_forward"] = one.work["unet_forward"]
        figures[f"{name}_unet_backward"] = one.work["unet_backward"]
    return figures


def _psnr(one: bytes, other: bytes) -> float:
    first, second = (decode_image(data).image[None] for data in (one, other))
    return _EQUAL_DB if first.equal(second) else psnr(first, second).item()


@app.command(cls=FarmCommand)
def concurrent_edits(
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    edits: Annotated[int, typer.Option(min=2)] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 11,
) -> None:
    """Measure what sharing one backbone is worth."""
    if json_file is not None:
        check_file(json_file)
    models = open_model_set("scenes")
    prepared = prepared_edits(models, edits, seed, {})
    with local_ray(), open_model_set_farm(models) as farm:
        pids = farm.backbone_pids()
        run_round(farm, prepared_edits(models, edits, _WARM_SEED, _WARM), edits)
        concurrent = run_round(farm, prepared, edits)
        serial = run_round(farm, prepared, 1)
        if farm.backbone_pids() != pids:
            raise EditFailedError("the backbone died meanwhile: run the benchmark again")
    figures = figures_of(concurrent, serial)
    print_json(figures)
    if json_file is not None:
        write_file(json_file, json.dumps(figures).encode())


if __name__ == "__main__":
    app()
