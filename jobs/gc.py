"""Remove what a store need not keep, and say how much a tenant may.

    editfarm gc --store out/store --dry-run
    editfarm gc --store s3://bucket/edits --stage-days 30
    editfarm gc --store out/store --quota 20GB --to-quota

Attempts that were never committed, checkpoints and pictures of no edit go after a day. Stages,
edits and jobs stay unless a number of days is named.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer

from farm.errors import InvalidRequestError
from farm.runner.retention import (
    DAY,
    Removal,
    Retention,
    plan,
    plan_to_quota,
    quota,
    remove,
    set_quota,
    usage,
)
from farm.storage.local import LocalStore
from farm.storage.opening import open_store
from farm.storage.patient import PatientStore
from farm.storage.store import Store
from jobs.console import FarmCommand, JsonOption, command_app, print_json, say
from jobs.records import TENANT

app = command_app()

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB)?", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


@dataclass
class _Sums:
    """What goes, by kind."""

    things: dict[str, int] = field(default_factory=dict[str, int])
    objects: int = 0
    size: int = 0
    busy: int = 0

    def add(self, removal: Removal) -> None:
        self.things[removal.what] = self.things.get(removal.what, 0) + 1
        self.objects += len(removal.keys)
        self.size += removal.size


@app.command(cls=FarmCommand)
def gc(
    store: Annotated[str, typer.Option(help="Path, file:// or s3://bucket.")] = "out/store",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    attempt_days: Annotated[
        float, typer.Option(min=0, help="Days that abandoned work is kept.")
    ] = 1.0,
    stage_days: Annotated[float | None, typer.Option(min=0, help="Days of stages.")] = None,
    edit_days: Annotated[float | None, typer.Option(min=0, help="Days of edits.")] = None,
    job_days: Annotated[float | None, typer.Option(min=0, help="Days of jobs' files.")] = None,
    new_quota: Annotated[
        str | None,
        typer.Option("--quota", help="What the tenant may keep from now on: 20GB, or none."),
    ] = None,
    to_quota: Annotated[
        bool, typer.Option("--to-quota", help="Also remove the oldest until the quota is kept.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Whose.")] = TENANT,
    as_json: JsonOption = False,
) -> None:
    """Remove what a store need not keep."""
    opened = open_store(store)
    patient = PatientStore(opened)
    if new_quota is not None and not dry_run:
        set_quota(patient, tenant, _quota_bytes(new_quota))
    retention = Retention(
        attempts=attempt_days * DAY,
        stages=_seconds(stage_days),
        edits=_seconds(edit_days),
        jobs=_seconds(job_days),
    )
    sums = _Sums()
    for removal in _removals(patient, tenant, retention, to_quota=to_quota):
        if not dry_run and not remove(patient, removal):
            sums.busy += 1
            continue
        sums.add(removal)
        if as_json:
            about = {"what": removal.what, "name": removal.name, "objects": len(removal.keys)}
            print_json({**about, "size": removal.size, "removed": not dry_run})
    _sweep_leftovers(opened, retention, dry_run=dry_run)
    say(_sentence(sums, dry_run=dry_run))
    most = quota(patient, tenant)
    if most is not None:
        say(f"tenant {tenant} keeps {usage(patient, tenant):,} of {most:,} bytes")


def _removals(
    store: Store, tenant: str, retention: Retention, *, to_quota: bool
) -> Iterator[Removal]:
    yield from plan(store, tenant, retention)
    most = quota(store, tenant) if to_quota else None
    if most is not None:
        yield from plan_to_quota(store, tenant, most)


def _sweep_leftovers(store: Store, retention: Retention, *, dry_run: bool) -> None:
    """Files of killed writers, which only a directory has."""
    if not isinstance(store, LocalStore):
        return
    found = store.leftovers(time.time() - retention.attempts)
    for path in found:
        if not dry_run:
            path.unlink(missing_ok=True)
    if found:
        say(f"{len(found)} unfinished files of killed writers")


def _sentence(sums: _Sums, *, dry_run: bool) -> str:
    things = ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in sorted(sums.things.items()))
    verb = "would remove" if dry_run else "removed"
    busy = f"; {sums.busy} are being worked on" if sums.busy else ""
    return f"{verb} {things or 'nothing'} ({sums.objects} objects, {sums.size:,} bytes){busy}"


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY


def _quota_bytes(text: str) -> int | None:
    """Bytes from `20GB`; None from `none`.

    Raises:
        InvalidRequestError: neither.
    """
    if text.lower() == "none":
        return None
    found = _SIZE.fullmatch(text.strip())
    number = int(float(found[1]) * _UNITS[(found[2] or "B").lower()]) if found else 0
    if number < 1:
        raise InvalidRequestError(f"--quota {text!r}: write a size such as 20GB, or none")
    return number


if __name__ == "__main__":
    app()
