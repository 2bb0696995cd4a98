r"""Measure a method on held-out scenes, as definitions.md says.

    editfarm evaluate --model-set scenes --method style_diffusion --edits 192 --seed 1 \
        --types colour,background --json out/quality/style_diffusion.json

The method sees the PNG bytes, the prompts and the target word, through the farm; masks, scenes and
the judge stay in this process. 192 edits take about 25 minutes on two cores; what is in the store
already is not run again.
"""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from farm.calls import Executor
from farm.diffusion import DiffusionClient
from farm.errors import FarmError, InvalidRequestError
from farm.images import decode_image, encode_png
from farm.masks import decode_mask
from farm.methods.style_diffusion.sampling import reconstruct
from farm.metrics.psnr import psnr
from farm.results import EditResult
from farm.runner import PreparedEdit, load_output, load_stage, prepare, versions
from farm.runner.style_diffusion import unpack_inversion
from farm.storage.opening import open_store
from farm.storage.store import Store, check_writable
from farm.zoo.evaluation import EditScore, as_json, summarise
from farm.zoo.judge import Judge, load_judge
from farm.zoo.model_sets import ModelSet, open_model_set
from farm.zoo.scenes.edits import EditTruth, SceneEdit, edit_truth, parse_types, sample_edits
from farm.zoo.scenes.requests import edit_name, edit_request
from farm.zoo.scenes.vocabulary import DEFAULT_TYPES
from farm.zoo.scoring import fidelity, is_success, judge_edit, score_region
from jobs.batch import EditRunner, Messages
from jobs.console import (
    FarmCommand,
    ModelSetOption,
    check_file,
    command_app,
    print_table,
    say,
    write_file,
)
from jobs.edit import parse_parameter
from jobs.records import TENANT
from jobs.runners import choose_runner

_THREADS = 8
_SAY_EVERY = 30.0

app = command_app()


@dataclass(frozen=True)
class _Case:
    """One edit of the set with everything that only the evaluation knows."""

    name: str
    edit: SceneEdit
    truth: EditTruth
    prepared: PreparedEdit


@dataclass(frozen=True)
class _Baselines:
    """What the autoencoder alone, and plain DDIM at the same guidance, make of the source."""

    autoencoded: Float[Tensor, "3 height width"]
    plain_ddim: Float[Tensor, "3 height width"]


@app.command(cls=FarmCommand)
def evaluate(
    edits: Annotated[int, typer.Option(min=1, help="Number of edits.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Held-out seed; any works.")] = 1,
    method: Annotated[str, typer.Option(help="style_diffusion")] = "style_diffusion",
    types: Annotated[str, typer.Option(help="Types of edit, by commas.")] = ",".join(DEFAULT_TYPES),
    model_set: ModelSetOption = "scenes",
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="Method parameter, name=value; repeatable.")
    ] = None,
    store: Annotated[str, typer.Option(help="Store; what it has is not run again.")] = (
        "out/evaluate"
    ),
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
) -> None:
    """Measure a method on held-out scenes against their exact truth."""
    if method != "style_diffusion":
        raise InvalidRequestError(f"no method {method!r}; there is style_diffusion")
    chosen = parse_types(types)
    if json_file is not None:
        check_file(json_file)
    models, opened = open_model_set(model_set), open_store(store)
    judge = load_judge(models.folder)
    cases = _cases(
        sample_edits(edits, seed, chosen), models, dict(map(parse_parameter, param or []))
    )
    check_writable(opened)
    started = time.monotonic()
    with choose_runner(models, opened, TENANT, inline=inline)() as runner:
        outcomes = _run(runner, cases, max_in_flight)
        say("measuring the autoencoder and plain DDIM")
        baselines = _all_baselines(runner, opened, cases, outcomes, 1 if inline else _THREADS)
        backbones = runner.describe()
    scores = [
        _score(case, outcomes[case.name], baselines.get(case.name), opened, judge) for case in cases
    ]
    summary = summarise(scores, seed=seed)
    summary["judge"] = _judge_figures(judge, cases, baselines)
    record = {
        "summary": summary,
        "edits": [as_json(score) for score in scores],
        "provenance": {
            "command": shlex.join(["editfarm", *sys.argv[1:]]),
            "seed": seed,
            "model_set": models.name,
            "weights": models.digests,
            "config": cases[0].prepared.method.config.model_dump(mode="json"),
            "versions": versions(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.platform()}",
            "wall_seconds": time.monotonic() - started,
            **_pids(outcomes),
            "backbones": backbones,
        },
    }
    if json_file is not None:
        write_file(json_file, json.dumps(record, indent=1).encode())
        say(f"figures: {json_file}")
    print_table(_table(summary))
    raise typer.Exit(int(summary["failed"] > 0))


def _cases(edits: list[SceneEdit], models: ModelSet, parameters: dict[str, Any]) -> list[_Case]:
    cases: list[_Case] = []
    for number, edit in enumerate(edits, start=1):
        name, truth = edit_name(edit, number), edit_truth(edit)
        request = edit_request(edit, name, model_set=models.name, parameters=parameters)
        picture = encode_png(truth.source.images[0])
        cases.append(_Case(name, edit, truth, prepare(request, picture, models)))
    return cases


def _run(
    runner: EditRunner, cases: list[_Case], in_flight: int
) -> dict[str, EditResult | FarmError]:
    """Outcome of every case, said as they come."""
    outcomes: dict[str, EditResult | FarmError] = {}
    started = last = time.monotonic()

    def watch(messages: Messages) -> None:
        nonlocal last
        if time.monotonic() - last > _SAY_EVERY:
            last = time.monotonic()
            say(f"{len(outcomes)}/{len(cases)} done, {len(messages)} running")

    named = ((case.name, case.prepared) for case in cases)
    for name, outcome in runner.run(named, in_flight=in_flight, watch=watch):
        outcomes[name] = outcome
        if isinstance(outcome, FarmError):
            say(f"failed {name}: {outcome.message}")
    say(f"{len(outcomes)} edits in {time.monotonic() - started:.0f} s")
    return outcomes


def _all_baselines(
    runner: EditRunner,
    store: Store,
    cases: Iterable[_Case],
    outcomes: Mapping[str, EditResult | FarmError],
    threads: int,
) -> dict[str, _Baselines]:
    """By name, for the cases that were edited; several at once share the backbone's batches."""
    edited = [c for c in cases if isinstance(outcomes[c.name], EditResult)]
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda case: _baselines(runner.executor(), store, case), edited)
        return dict(zip((case.name for case in edited), found, strict=True))


def _baselines(executor: Executor, store: Store, case: _Case) -> _Baselines:
    client = DiffusionClient(executor, case.prepared.model_set.spec)
    inversion = unpack_inversion(load_stage(store, TENANT, case.prepared.stage_digest))
    source = case.truth.source.images[0]
    return _Baselines(
        autoencoded=client.decode(client.encode(source)),
        plain_ddim=client.decode(reconstruct(inversion, client)),
    )


def _score(
    case: _Case,
    outcome: EditResult | FarmError,
    baselines: _Baselines | None,
    store: Store,
    judge: Judge,
) -> EditScore:
    edit, truth = case.edit, case.truth
    about: dict[str, Any] = {
        "id": case.name,
        "type": edit.type,
        "held_out": edit.held_out,
        "small": truth.region.mean().item() < 0.04,
        "objects": int(edit.source.count[0]),
        "source_prompt": edit.source_prompt,
        "target_prompt": edit.target_prompt,
    }
    if isinstance(outcome, FarmError) or baselines is None:
        return EditScore(**about, error=str(outcome))
    edited = decode_image(load_output(store, outcome, "edited.png")).image
    attention = decode_mask(load_output(store, outcome, "attention.png"))[0]
    mask = None
    if "mask.png" in outcome.files:
        mask = decode_mask(load_output(store, outcome, "mask.png"))[0]
    rebuilt = decode_image(load_output(store, outcome, "reconstruction.png")).image
    judgement = judge_edit(judge, edited, edit, truth)
    figures = fidelity(edited, baselines.autoencoded, truth)
    region = score_region(truth, mask, attention)
    source = truth.source.images
    return EditScore(
        **about,
        success=float(is_success(judgement, figures)),
        asked=float(judgement.asked),
        outside_psnr=figures.outside,
        bound_psnr=figures.bound,
        inside_psnr=figures.inside,
        region_iou=region.iou,
        pointing=region.pointing,
        reconstruction_psnr=psnr(rebuilt[None], source).item(),
        reconstruction_bound_psnr=psnr(baselines.autoencoded[None], source).item(),
        plain_ddim_psnr=psnr(baselines.plain_ddim[None], source).item(),
        seconds=outcome.provenance.seconds,
        accelerator_seconds=outcome.provenance.accelerator_seconds,
        calls=outcome.provenance.work,
    )


def _judge_figures(
    judge: Judge, cases: Iterable[_Case], baselines: Mapping[str, _Baselines]
) -> dict[str, float]:
    """How the judge itself does on this set: on sources left alone, and on true targets."""
    rows = [(case, baselines[case.name]) for case in cases if case.name in baselines]

    def success(case: _Case, picture: Tensor, autoencoded: Tensor) -> bool:
        judgement = judge_edit(judge, picture, case.edit, case.truth)
        return is_success(judgement, fidelity(picture, autoencoded, case.truth))

    unedited = [success(c, b.autoencoded, b.autoencoded) for c, b in rows]
    true = [success(c, c.truth.target.images[0], b.autoencoded) for c, b in rows]
    number = max(1, len(rows))
    return {"unedited_success": sum(unedited) / number, "true_success": sum(true) / number}


def _pids(outcomes: Mapping[str, EditResult | FarmError]) -> dict[str, list[int]]:
    done = [o.provenance for o in outcomes.values() if isinstance(o, EditResult)]
    return {
        "trainer_pids": sorted({p.trainer_pid for p in done}),
        "backbone_pids": sorted({pid for p in done for pid in p.backbone_pids}),
    }


def _table(summary: Mapping[str, Any]) -> Table:
    """All edits and each type; figures with their intervals."""
    columns = {"all": summary, **summary["by_type"]}
    table = Table("figure", *columns)
    for name in summary["intervals"]:
        table.add_row(name, *_cells(name, columns.values()))
    table.add_row("edits", *(str(c["edits"]) for c in columns.values()))
    return table


def _cells(name: str, columns: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for column in columns:
        if column[name] is None:
            yield "-"
            continue
        low, high = column["intervals"][name]
        yield f"{column[name]:.3g} [{low:.3g}, {high:.3g}]"


if __name__ == "__main__":
    app()
