"""Make, list and revoke API keys of the HTTP side: kept as digests, shown once.

editfarm keys add acme --file keys.json --note "build server"
editfarm keys list --file keys.json
editfarm keys revoke 0123456789abcdef --file keys.json
"""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table

from farm.errors import InvalidRequestError
from farm.requests import describe
from jobs.console import FarmCommand, JsonOption, command_app, print_json, print_table, say
from serve.keys import KeyFile, add_key, read_keys, revoke_key, write_keys

app = command_app("Make, list and revoke API keys.")

FileOption = Annotated[Path, typer.Option("--file", help="The keys file.")]


@app.command(cls=FarmCommand)
def add(
    tenant: Annotated[str, typer.Argument(help="Whose; small letters, digits and dashes.")],
    file: FileOption = Path("keys.json"),
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a key and print it: nobody can read it again."""
    keys = read_keys(file) if file.exists() else KeyFile()
    try:
        keys, key = add_key(keys, tenant, note)
    except ValidationError as error:
        raise InvalidRequestError(f"tenant {tenant!r}: {describe(error)}") from error
    write_keys(file, keys)
    say(f"a key of {tenant}, kept as a digest in {file}:")
    typer.echo(key)


@app.command("list", cls=FarmCommand)
def list_keys(file: FileOption = Path("keys.json"), as_json: JsonOption = False) -> None:
    """List tenants and their keys' ids."""
    table = Table("tenant", "key", "made", "note", box=None)
    for tenant, about in read_keys(file).tenants.items():
        for name, entry in about.keys.items():
            made = f"{entry.created:%Y-%m-%d %H:%M}"
            if as_json:
                print_json({"tenant": tenant, "key": name, "made": made, "note": entry.note})
            table.add_row(tenant, name, made, entry.note)
    if not as_json:
        print_table(table)


@app.command(cls=FarmCommand)
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, the middle of ef_<id>_….")],
    file: FileOption = Path("keys.json"),
) -> None:
    """Take a key back; replicas notice within seconds."""
    write_keys(file, revoke_key(read_keys(file), key))
    say(f"{key} is no key any more")


if __name__ == "__main__":
    app()
