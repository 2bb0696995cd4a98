"""Edit every line of a manifest: one job, resumable by submitting it again.

    editfarm edit-many --manifest edits.jsonl --output out/store
    ray job submit --working-dir . -- python -m jobs.edit_many --manifest … --output s3://bucket/x

A scenes edit takes about ten seconds of a core, and starting the farm about fifteen.
"""

from pathlib import Path
from typing import Annotated

import typer

from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs.batch import Batch
from jobs.console import FarmCommand, JsonOption, ModelSetOption, command_app
from jobs.job import JobOptions, run_job
from jobs.records import TENANT, job_name
from jobs.runners import choose_runner

app = command_app()


@app.command(cls=FarmCommand)
def edit_many(
    manifest: Annotated[Path, typer.Option(help="One edit a line, as JSON (docs/cli.md).")],
    output: Annotated[str, typer.Option(help="Store: a path, file:// or s3://bucket/prefix.")],
    model_set: ModelSetOption = "scenes",
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    report: Annotated[bool, typer.Option(help="Write an HTML report.")] = True,
    report_file: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Edit every line of a manifest."""
    models = open_model_set(model_set)
    store = open_store(output)
    batch = Batch(manifest, models, store, TENANT, job_name(manifest, models.name))
    runner = choose_runner(models, store, TENANT, inline=inline)
    totals = run_job(batch, runner, JobOptions(max_in_flight, report, report_file, as_json))
    raise typer.Exit(totals.exit_code)


if __name__ == "__main__":
    app()
