"""Edit every line of a manifest: one job, resumable by submitting it again.

    editfarm edit-many --manifest edits.jsonl --output out/store
    editfarm edit-many --manifest s3://bucket/edits.parquet --output s3://bucket/store
    editfarm edit-many --from style-diffusion data/stylediffusion_editing.csv --from-case 1
    ray job submit --working-dir . -- python -m jobs.edit_many --manifest … --output s3://bucket/x

A scenes edit takes about ten seconds of a core, and starting the farm about fifteen.
"""

from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidManifestError, InvalidRequestError
from jobs.batch import check_lines
from jobs.console import FarmCommand, JsonOption, ModelSetOption, command_app, print_json, say
from jobs.edit import parse_parameter
from jobs.importers import FORMS, form_of
from jobs.outcomes import FailedEdit
from jobs.records import TENANT
from jobs.showing import JsonView, TableView
from jobs.submission import Submission, open_batch, run_submission

app = command_app()


@app.command(cls=FarmCommand)
def edit_many(
    file: Annotated[str | None, typer.Argument(help="What to edit; see --from.")] = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="The same: JSON lines, CSV or Parquet; a path or s3:// (docs/cli.md)."),
    ] = None,
    output: Annotated[
        str, typer.Option(help="Store: a path, file:// or s3://bucket/prefix.")
    ] = "out/store",
    form: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORM",
            help=f"Form of the file, else as its name ends: {', '.join(FORMS)}.",
        ),
    ] = None,
    from_case: Annotated[int | None, typer.Option(help="First case_number to edit.")] = None,
    end_case: Annotated[int | None, typer.Option(help="case_number to stop before.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Parameter of lines that do not set it."),
    ] = None,
    method: Annotated[str | None, typer.Option(help="Of lines that name none.")] = None,
    variations: Annotated[int, typer.Option(min=1, help="Seeds of each edit.")] = 1,
    compare: Annotated[
        str | None, typer.Option(metavar="METHOD,METHOD", help="Each edit by each of these.")
    ] = None,
    model_set: ModelSetOption = "scenes",
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Model set that another door serves on the same GPUs; may be repeated."),
    ] = None,
    backbones: Annotated[
        int, typer.Option(min=1, help="Processes with the networks that are always there.")
    ] = 1,
    max_backbones: Annotated[
        int | None,
        typer.Option(min=1, help="How many while queues are long; else one a GPU that Ray has."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose edits.")] = TENANT,
    max_in_flight: Annotated[int, typer.Option(min=1, help="Edits that run at once.")] = 8,
    max_accelerator_seconds: Annotated[
        float | None, typer.Option(min=0, help="The job stops when it has cost so much.")
    ] = None,
    edit_accelerator_seconds: Annotated[
        float | None, typer.Option(min=0, help="An edit fails when it has cost so much.")
    ] = None,
    hang_seconds: Annotated[
        float, typer.Option(min=1, help="Without progress, until an edit is taken for hung.")
    ] = 600.0,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a machine that does not answer.")
    ] = 1800.0,
    retry_failed: Annotated[
        bool, typer.Option(help="Also try again what failed for good.")
    ] = False,
    validate_only: Annotated[
        bool,
        typer.Option(
            "--validate-only", "--dry-run", help="Check every row, run nothing; or --dry-run."
        ),
    ] = False,
    report: Annotated[bool, typer.Option(help="Write an HTML report.")] = True,
    report_file: Annotated[Path | None, typer.Option(help="Also write the report here.")] = None,
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Edit every line of a manifest."""
    source = _only(file, manifest)
    if method is not None and compare is not None:
        raise InvalidRequestError("found --method and --compare: name the methods with one of them")
    submission = Submission(
        manifest=source,
        output=output,
        form=form or form_of(source),
        parameters=dict(map(parse_parameter, param or [])),
        from_case=from_case,
        end_case=end_case,
        variations=variations,
        methods=tuple(compare.split(",")) if compare is not None else (),
        method=method,
        model_set=model_set,
        beside=tuple(beside or ()),
        backbones=backbones,
        max_backbones=max_backbones,
        tenant=tenant,
        max_in_flight=max_in_flight,
        hang_seconds=hang_seconds,
        patience=patience,
        max_accelerator_seconds=max_accelerator_seconds,
        edit_accelerator_seconds=edit_accelerator_seconds,
        inline=inline,
    )
    if validate_only:
        raise typer.Exit(_validate(submission, as_json=as_json))
    totals = run_submission(
        submission,
        JsonView() if as_json else TableView(),
        retry_failed=retry_failed,
        report=report,
        report_file=report_file,
    )
    raise typer.Exit(totals.exit_code)


def _only(file: str | None, manifest: str | None) -> str:
    if (file is None) == (manifest is None):
        found = "none" if file is None else "two"
        raise InvalidRequestError(f"found {found} of FILE and --manifest: name one file to edit")
    return file or manifest or ""


def _validate(submission: Submission, *, as_json: bool) -> int:
    """Check all rows; the exit code.

    Raises:
        InvalidManifestError: there is no row.
    """
    right = wrong = 0
    with open_batch(submission) as batch:
        for line in check_lines(batch):
            if not isinstance(line, FailedEdit):
                right += 1
                continue
            wrong += 1
            if as_json:
                print_json(
                    line.model_dump(mode="json", include={"line", "name", "kind", "message"})
                )
            else:
                typer.echo(f"row {line.line} ({line.name}): {line.message}")
        if not right + wrong:
            raise InvalidManifestError(f"{batch.name} has no line: write one edit a line, as JSON")
    say(f"{right} rows are right, {wrong} are wrong")
    if not right:
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    app()
