"""Edit every line of a manifest: one job, resumable by submitting it again.

    editfarm edit-many --manifest edits.jsonl --output out/store
    editfarm edit-many --from style-diffusion data/stylediffusion_editing.csv --from-case 1
    ray job submit --working-dir . -- python -m jobs.edit_many --manifest … --output s3://bucket/x

A scenes edit takes about ten seconds of a core, and starting the farm about fifteen.
"""

from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidRequestError
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs.batch import Batch
from jobs.console import FarmCommand, JsonOption, ModelSetOption, command_app
from jobs.edit import parse_parameter
from jobs.importers import FORMS, JSONL, Reading
from jobs.job import JobOptions, run_job
from jobs.records import TENANT, job_name
from jobs.runners import choose_runner

app = command_app()


@app.command(cls=FarmCommand)
def edit_many(
    file: Annotated[Path | None, typer.Argument(help="What to edit; see --from.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="The same: one edit a line, as JSON (docs/cli.md).")
    ] = None,
    output: Annotated[
        str, typer.Option(help="Store: a path, file:// or s3://bucket/prefix.")
    ] = "out/store",
    form: Annotated[
        str, typer.Option("--from", metavar="FORM", help=f"Form of the file: {', '.join(FORMS)}.")
    ] = JSONL,
    from_case: Annotated[int | None, typer.Option(help="First case_number to edit.")] = None,
    end_case: Annotated[int | None, typer.Option(help="case_number to stop before.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Parameter of lines that do not set it."),
    ] = None,
    model_set: ModelSetOption = "scenes",
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    report: Annotated[bool, typer.Option(help="Write an HTML report.")] = True,
    report_file: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Edit every line of a manifest."""
    parameters = dict(map(parse_parameter, param or []))
    reading = Reading(form, parameters, from_case, end_case)
    reading.check()
    path = reading.file(_only(file, manifest))
    models = open_model_set(model_set)
    store = open_store(output)
    job = job_name(path, models.name, reading=reading.text())
    batch = Batch(path, models, store, TENANT, job, reading)
    runner = choose_runner(models, store, TENANT, inline=inline)
    totals = run_job(batch, runner, JobOptions(max_in_flight, report, report_file, as_json))
    raise typer.Exit(totals.exit_code)


def _only(file: Path | None, manifest: Path | None) -> Path:
    if (file is None) == (manifest is None):
        found = "none" if file is None else "two"
        raise InvalidRequestError(f"found {found} of FILE and --manifest: name one file to edit")
    return file or manifest or Path()


if __name__ == "__main__":
    app()
