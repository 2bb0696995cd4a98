"""How long a store keeps what: abandoned attempts, stages, edits, jobs; and how much a tenant may.

`plan` says what may go and why, `remove` does it: a dry run is a plan alone. Nothing that somebody
still writes is taken: an object younger than `Retention.attempts` is left wherever there is doubt.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from farm.errors import CorruptArtifactError, StoreError
from farm.storage.commits import read_commit
from farm.storage.layout import (
    checkpoints_prefix,
    commit_key,
    edits_prefix,
    inputs_prefix,
    jobs_prefix,
    lease_key,
    quota_key,
    stages_prefix,
    tenant_prefix,
)
from farm.storage.leases import acquire
from farm.storage.store import Entry, MissingKeyError, Store, UnusableStoreError

DAY = 86_400.0
_LEASE_SECONDS = 60.0
_PROBES = "probes/"

What = Literal["attempt", "checkpoint", "stage", "edit", "input", "job", "probe"]


class QuotaExceededError(UnusableStoreError):
    """The tenant keeps as much as it may."""


class _Quota(BaseModel):
    """quota.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    max_bytes: int = Field(gt=0)


@dataclass(frozen=True)
class Retention:
    """How many seconds things are kept after they were last written; for ever if None.

    Attributes:
        attempts: attempts that were never committed, checkpoints, pictures of no edit, probes.
        stages: committed stages; edits that used them stay, the next that needs one makes it anew.
        edits: committed edits.
        jobs: what jobs said of themselves.
    """

    attempts: float = DAY
    stages: float | None = None
    edits: float | None = None
    jobs: float | None = None


@dataclass(frozen=True)
class Removal:
    """Objects that may go together.

    Attributes:
        what: kind of thing.
        name: of it.
        keys: in the order in which they go.
        size: in bytes.
        modified: Unix time of its latest writing.
        lease: prefix of the target that must not be worked on meanwhile; None where nobody does.
    """

    what: What
    name: str
    keys: tuple[str, ...]
    size: int
    modified: float
    lease: str | None = None


@dataclass
class _Target:
    """All objects of an edit or a stage, as a listing gave them."""

    kind: Literal["edit", "stage"]
    prefix: str
    entries: list[Entry]
    attempts: dict[str, list[Entry]] = field(default_factory=dict[str, list[Entry]])

    def __post_init__(self) -> None:
        above = f"{self.prefix}/attempts/"
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.key.startswith(above):
                found[entry.key.removeprefix(above).partition("/")[0]].append(entry)
        self.attempts = dict(found)

    @property
    def name(self) -> str:
        return self.prefix.rpartition("/")[2]

    @property
    def commit(self) -> Entry | None:
        return next((e for e in self.entries if e.key == commit_key(self.prefix)), None)

    @property
    def checkpoints(self) -> list[Entry]:
        above = checkpoints_prefix(self.prefix)
        return [e for e in self.entries if e.key.startswith(above)]

    @property
    def newest(self) -> float:
        return max(entry.modified for entry in self.entries)


def usage(store: Store, tenant: str) -> int:
    """Bytes that a tenant keeps; lists them all.

    Raises:
        StoreError: the store failed.
    """
    return sum(entry.size for entry in store.entries(tenant_prefix(tenant)))


def quota(store: Store, tenant: str) -> int | None:
    """Bytes that a tenant may keep; None for any number.

    Raises:
        CorruptArtifactError: quota.json is none.
        StoreError: the store failed.
    """
    try:
        return _Quota.model_validate_json(store.get(quota_key(tenant))).max_bytes
    except MissingKeyError:
        return None
    except ValidationError as error:
        raise CorruptArtifactError(
            f"{quota_key(tenant)} in {store.uri} is no quota ({error}): set it anew with "
            "`editfarm gc --quota`"
        ) from error


def set_quota(store: Store, tenant: str, max_bytes: int | None) -> None:
    """Let a tenant keep so many bytes; any number if None."""
    if max_bytes is None:
        store.delete(quota_key(tenant))
    else:
        store.put(quota_key(tenant), _Quota(max_bytes=max_bytes).model_dump_json().encode())


def check_quota(store: Store, tenant: str) -> None:
    """Refuse a job of a tenant that has used up its quota; one request where there is none.

    Raises:
        QuotaExceededError: it has.
        StoreError: the store failed.
    """
    most = quota(store, tenant)
    if most is None:
        return
    found = usage(store, tenant)
    if found >= most:
        raise QuotaExceededError(
            f"tenant {tenant!r} keeps {found:,} bytes in {store.uri} and may keep {most:,}: "
            "delete artifacts, run `editfarm gc --to-quota`, or raise it with `editfarm gc --quota`"
        )


def plan(
    store: Store, tenant: str, retention: Retention, *, clock: Callable[[], float] = time.time
) -> Iterator[Removal]:
    """What may go, found in one listing.

    Raises:
        StoreError: the store failed.
    """
    now = clock()
    busy = False
    images: set[str] | None = set()
    for target in _targets(store, tenant):
        if target.commit is None and now - target.newest <= retention.attempts:
            busy = True
        if target.kind == "edit" and target.commit is not None:
            images = _with_image(store, target, images)
        yield from _of_target(store, target, retention, now)
    if images is not None and not busy:  # a new edit may use a picture that is there already
        for entry in store.entries(inputs_prefix(tenant)):
            name = entry.key.rpartition("/")[2]
            if name not in images and now - entry.modified > retention.attempts:
                yield _removal("input", name, [entry])
    if retention.jobs is not None:
        yield from _old_jobs(store, tenant, now - retention.jobs)
    for entry in store.entries(_PROBES):
        if now - entry.modified > retention.attempts:
            yield _removal("probe", entry.key, [entry])


def plan_to_quota(store: Store, tenant: str, most: int) -> Iterator[Removal]:
    """The oldest stages, and if that is not enough the oldest edits, until no more is kept.

    Raises:
        StoreError: the store failed.
    """
    left = usage(store, tenant) - most
    if left <= 0:
        return
    committed = [target for target in _targets(store, tenant) if target.commit is not None]
    committed.sort(key=lambda target: (target.kind == "edit", target.newest))
    for target in committed:
        if left <= 0:
            return
        whole = _whole(target)
        left -= whole.size
        yield whole


def remove(store: Store, removal: Removal) -> bool:
    """Remove what was planned; False if somebody works on it at this moment.

    Raises:
        StoreError: the store failed; the rest can be removed later.
    """
    lease = None
    if removal.lease is not None:
        lease = acquire(store, removal.lease, f"gc-{uuid.uuid4().hex}", ttl=_LEASE_SECONDS)
        if lease is None:
            return False
    try:
        for key in removal.keys:
            store.delete(key)
        if lease is not None and removal.lease is not None:
            store.delete(lease_key(removal.lease))
    except StoreError:
        if lease is not None:
            with suppress(StoreError):  # it will expire
                lease.release()
        raise
    return True


def _targets(store: Store, tenant: str) -> Iterator[_Target]:
    """Every edit and stage, one at a time: keys of one target come together."""
    prefixes: Sequence[tuple[Literal["edit", "stage"], str]] = (
        ("edit", edits_prefix(tenant)),
        ("stage", stages_prefix(tenant)),
    )
    for kind, prefix in prefixes:
        by_name = groupby(
            store.entries(prefix), lambda e, p=prefix: e.key.removeprefix(p).partition("/")[0]
        )
        for name, entries in by_name:
            yield _Target(kind, prefix + name, list(entries))


def _of_target(
    store: Store, target: _Target, retention: Retention, now: float
) -> Iterator[Removal]:
    kept = retention.stages if target.kind == "stage" else retention.edits
    commit = target.commit
    if commit is None:
        if now - target.newest > retention.attempts:
            entries = [e for e in target.entries if e.key != lease_key(target.prefix)]
            if entries:
                yield _removal("attempt", target.name, entries, lease=target.prefix)
        return
    if kept is not None and now - commit.modified > kept:
        yield _whole(target)
        return
    if len(target.attempts) > 1:
        record = read_commit(store, target.prefix)
        for attempt, entries in target.attempts.items():
            old = now - max(e.modified for e in entries) > retention.attempts
            if record is not None and attempt != record.attempt and old:
                yield _removal("attempt", f"{target.name}/{attempt}", entries)
    old = [e for e in target.checkpoints if now - e.modified > retention.attempts]
    if old:
        yield _removal("checkpoint", target.name, old)


def _whole(target: _Target) -> Removal:
    """The commit first, so that no committed file is ever missing."""
    lease = lease_key(target.prefix)
    entries = [e for e in target.entries if e.key != lease]
    entries.sort(key=lambda e: e.key != commit_key(target.prefix))
    held = target.prefix if target.kind == "stage" else None
    return _removal(target.kind, target.name, entries, lease=held)


def _with_image(store: Store, target: _Target, images: set[str] | None) -> set[str] | None:
    """The pictures in use with this edit's too; None once an edit does not tell."""
    if images is None:
        return None
    record = read_commit(store, target.prefix)
    about: JsonValue = record.extra.get("provenance") if record is not None else None
    image = about.get("image_digest") if isinstance(about, dict) else None
    if record is not None and not isinstance(image, str):
        return None
    if isinstance(image, str):
        images.add(image)
    return images


def _old_jobs(store: Store, tenant: str, before: float) -> Iterator[Removal]:
    prefix = jobs_prefix(tenant)
    for name, group in groupby(
        store.entries(prefix), lambda e: e.key.removeprefix(prefix).partition("/")[0]
    ):
        entries = list(group)
        if max(e.modified for e in entries) < before:
            yield _removal("job", name, entries)


def _removal(
    what: What, name: str, entries: Iterable[Entry], *, lease: str | None = None
) -> Removal:
    entries = list(entries)
    return Removal(
        what,
        name,
        tuple(e.key for e in entries),
        sum(e.size for e in entries),
        max(e.modified for e in entries),
        lease,
    )
