"""Write the HTML report of a job anew, from what lies in the store.

editfarm report --store out/demo/store
python -m jobs.report --store s3://bucket/edits --job 0123456789abcdef --file report.html
"""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from farm.storage.opening import open_store
from jobs.console import FarmCommand, JsonOption, command_app, print_json, say
from jobs.records import OUTCOMES, TENANT, find_job
from jobs.reporting import PICTURED, StoredOutcomes, write_report

app = command_app()


@app.command(cls=FarmCommand)
def report(
    store: Annotated[str, typer.Option(help="Path, file:// or s3:// of the job's store.")],
    job: Annotated[str | None, typer.Option(help="Which job, where there are several.")] = None,
    file: Annotated[Path | None, typer.Option(help="Also write the page here.")] = None,
    edits: Annotated[int, typer.Option(min=1, help="Edits with pictures.")] = PICTURED,
    tenant: Annotated[str, typer.Option(help="Whose job.")] = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a job anew, from what lies in the store."""
    files = find_job(open_store(store), tenant, job)
    with tempfile.TemporaryDirectory(prefix="editfarm-") as folder:
        lines = Path(folder) / OUTCOMES
        files.store.get_file(files.key(OUTCOMES), lines)
        outcomes = StoredOutcomes(lines)
        place = write_report(files, files.summary(), outcomes, file, edits=edits)
    if as_json:
        print_json({"job": files.job, "report": place})
    else:
        say(f"report: {place}")


if __name__ == "__main__":
    app()
