"""Edit the demo's held-out scenes into an empty store, and report on them.

    editfarm demo
    python -m jobs.demo --folder /tmp/demo

About two minutes on two cores.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from farm.errors import InvalidRequestError
from farm.storage.opening import open_store
from farm.zoo.model_sets import open_model_set
from jobs.batch import Batch
from jobs.console import FarmCommand, command_app
from jobs.job import JobOptions, run_job
from jobs.records import TENANT, job_name
from jobs.runners import choose_runner

MANIFEST = Path("examples/demo/manifest.jsonl")

app = command_app()


@app.command(cls=FarmCommand)
def demo(
    manifest: Annotated[Path, typer.Option(help="What to edit.")] = MANIFEST,
    folder: Annotated[Path, typer.Option(help="Its store and its report.")] = Path("out/demo"),
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
) -> None:
    """Edit the demo's held-out scenes into an empty store."""
    models = open_model_set("scenes")
    store_folder = _emptied(folder / "store")
    store = open_store(str(store_folder))
    batch = Batch(manifest, models, store, TENANT, job_name(manifest, models.name))
    runner = choose_runner(models, store, TENANT, inline=inline)
    totals = run_job(batch, runner, JobOptions(report_file=folder / "report.html"))
    raise typer.Exit(totals.exit_code)


def _emptied(folder: Path) -> Path:
    """The folder without what an earlier demo left there, and never without anything else.

    Raises:
        InvalidRequestError: it holds what no store holds.
    """
    if folder.exists():
        strange = {path.name for path in folder.iterdir()} - {"tenants", ".tmp", ".locks"}
        if strange:
            raise InvalidRequestError(
                f"{folder} is no demo's store, it holds {', '.join(sorted(strange))}: choose "
                "another --folder"
            )
        shutil.rmtree(folder)
    return folder


if __name__ == "__main__":
    app()
