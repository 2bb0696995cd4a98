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
from jobs.console import FarmCommand, command_app
from jobs.scenes_manifest import write_scenes
from jobs.submission import Submission, run_submission

MANIFEST = Path("examples/demo/manifest.jsonl")
_EDITS, _SEED = 8, 4
"""What `examples/demo` holds: whoever installed a wheel has no such folder, and draws the same."""

app = command_app()


@app.command(cls=FarmCommand)
def demo(
    manifest: Annotated[
        Path | None, typer.Option(help="What to edit, instead of the demo's scenes.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Its store and its report.")] = Path("out/demo"),
    inline: Annotated[bool, typer.Option(help="In this process, one by one, no Ray.")] = False,
) -> None:
    """Edit the demo's held-out scenes into an empty store."""
    if manifest is None:
        manifest = MANIFEST if MANIFEST.is_file() else drawn(folder / "scenes")
    store = _emptied(folder / "store")
    submission = Submission(str(manifest), str(store), inline=inline)
    totals = run_submission(submission, report_file=folder / "report.html")
    raise typer.Exit(totals.exit_code)


def drawn(folder: Path) -> Path:
    """The demo's scenes, drawn anew."""
    return write_scenes(folder, edits=_EDITS, seed=_SEED)


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
