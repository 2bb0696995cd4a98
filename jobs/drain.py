"""Empty a machine before it is taken away: no new work, and time for what runs.

    editfarm drain                   # this machine, now; ends when it is empty, or after --seconds
    editfarm drain --watch aws       # wait for the cloud's notice first (spot instances)
    editfarm drain --node-id 3f0c…   # another machine, by Ray's id (`editfarm status --json`)

Trainers that do not finish start again elsewhere, from their last checkpoint.
"""

from enum import StrEnum
from typing import Annotated

import typer

from actors.cluster_state import find_address
from actors.draining import await_notice, drain, this_node, wait_until_empty
from actors.local import local_ray
from cluster.settings import SETTLE_SECONDS
from jobs.console import FarmCommand, command_app, say

app = command_app()


class Cloud(StrEnum):
    """Whose metadata service says that a machine goes."""

    aws = "aws"
    gcp = "gcp"


@app.command(cls=FarmCommand)
def drain_command(
    node_id: Annotated[str | None, typer.Option(help="Ray's id of the node. [this one]")] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Until the machine is gone.")
    ] = SETTLE_SECONDS,
    watch: Annotated[
        Cloud | None, typer.Option(help="Wait for this cloud's notice before draining.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Of the cluster. [RAY_ADDRESS]")] = None,
) -> None:
    """Empty a machine before it is taken away."""
    message = "drained by hand"
    if watch is not None:
        message = await_notice("aws" if watch is Cloud.aws else "gcp")
    found = find_address(address)
    if node_id is None:
        with local_ray(address=found):
            node_id = this_node()
    drain(found, node_id, seconds=seconds, message=message)
    say(f"node {node_id} takes nothing new ({message})")
    empty = wait_until_empty(found, node_id, seconds=seconds)
    say("it is empty" if empty else f"still busy after {seconds:g} s: what runs goes on elsewhere")


if __name__ == "__main__":
    app()
