"""Exactly-once commit: many attempts may run, one counts.

An attempt writes its files below `attempts/<attempt>/`, then puts `COMMIT.json`, which names the
attempt and the digest of each file, on condition that there is none. Whoever reads goes through
COMMIT.json, so it never sees a half-written attempt or a mixture of two (specs/platform.md, D).
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from farm.errors import CorruptArtifactError, StoreError
from farm.storage.layout import attempt_file_key, commit_key
from farm.storage.store import MissingKeyError, Store, UnusableStoreError

SCHEMA_VERSION = 1
_COMMIT_TRIES = 3


class CommittedFile(BaseModel):
    """What a committed file must be; `size` in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class CommitDocument(BaseModel):
    """COMMIT.json as it is stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    attempt: str
    files: dict[str, CommittedFile]
    extra: dict[str, JsonValue]


class CommitRecord(CommitDocument):
    """The commit of a target. `won`: the call that returned it is the one that committed."""

    won: bool = False


def commit(
    store: Store,
    target: str,
    attempt: str,
    files: Mapping[str, bytes],
    extra: Mapping[str, JsonValue] | None = None,
) -> CommitRecord:
    """Commit these files as the target's content, unless another attempt already has.

    Args:
        store: where.
        target: prefix of an edit or a stage (farm.storage.layout).
        attempt: a new `uuid4().hex` for each run; a retry of a run is another run.
        files: content by name.
        extra: what else the record should say (provenance, epoch).

    Returns:
        The record that counts. If it is another attempt's (`won` is false), our files are deleted.

    Raises:
        StoreError: the store failed, also when asked again. The commit may or may not have landed:
            our files stay, and committing again, as a new attempt, settles it.
        CorruptArtifactError: the attempt was used before, for other content.
    """
    document = CommitDocument(
        attempt=attempt,
        files={name: _describe(data) for name, data in files.items()},
        extra=dict(extra or {}),
    )
    record = read_commit(store, target)  # spares a late attempt the upload
    if record is None:
        for name, data in files.items():
            _write_once(store, attempt_file_key(target, attempt, name), data)
        record = _put_commit(store, target, document)
    if record.attempt == attempt:
        return record.model_copy(update={"won": True})
    for name in files:
        with suppress(StoreError):  # an orphan costs space, and is swept some day
            store.delete(attempt_file_key(target, attempt, name))
    return record


def read_commit(store: Store, target: str) -> CommitRecord | None:
    """The record that counts, or None while there is none.

    Raises:
        CorruptArtifactError: COMMIT.json is not one.
        UnusableStoreError: it was written by a newer farm.
        StoreError: the store failed.
    """
    key = commit_key(target)
    try:
        data = store.get(key)
    except MissingKeyError:
        return None
    return CommitRecord(**dict(_parse(data, f"{key!r} in {store.uri}")))


def read_file(store: Store, target: str, record: CommitRecord, name: str) -> bytes:
    """A committed file, as it was when it was committed.

    Raises:
        MissingKeyError: the commit has no file of that name.
        CorruptArtifactError: the file is gone, or differs from its digest.
        StoreError: the store failed.
    """
    expected = record.files.get(name)
    if expected is None:
        raise MissingKeyError(
            f"the commit of {target!r} has no file {name!r}: there are {sorted(record.files)}"
        )
    key = attempt_file_key(target, record.attempt, name)
    try:
        found = store.get(key)
    except MissingKeyError as error:
        raise CorruptArtifactError(
            f"{key!r} is committed but gone from {store.uri}: "
            f"delete {target!r} and compute it again"
        ) from error
    if _describe(found) != expected:
        raise CorruptArtifactError(
            f"{key!r} in {store.uri} is not what was committed: expected {expected.size} bytes "
            f"with SHA-256 {expected.sha256}, found {len(found)} with {_describe(found).sha256}; "
            f"delete {target!r} and compute it again"
        )
    return found


def _put_commit(store: Store, target: str, document: CommitDocument) -> CommitRecord:
    """Put COMMIT.json until it is known whose it is.

    A put whose reply is lost may have landed, now or a moment from now; putting again asks which,
    and then "there is one already" may well be about our own.
    """
    key = commit_key(target)
    data = document.model_dump_json(indent=1).encode()
    failure = StoreError(f"{key!r} in {store.uri} appears and disappears: see who deletes it")
    for _ in range(_COMMIT_TRIES):
        try:
            if store.put_if_absent(key, data) is not None:
                return CommitRecord(**dict(document))
            record = read_commit(store, target)
        except UnusableStoreError:
            raise
        except StoreError as error:
            failure = error
            continue
        if record is not None:
            return record
    raise failure


def _write_once(store: Store, key: str, data: bytes) -> None:
    """The files of an attempt never change: a digest in COMMIT.json stays true."""
    if store.put_if_absent(key, data) is None and store.get(key) != data:
        raise CorruptArtifactError(
            f"{key!r} in {store.uri} already has other content: two runs share one attempt's name; "
            "give each run a new one"
        )


def _describe(data: bytes) -> CommittedFile:
    return CommittedFile(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def _parse(data: bytes, where: str) -> CommitDocument:
    try:
        fields: Any = json.loads(data)
        version = fields["schema_version"]
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptArtifactError(
            f"{where} is no commit record (JSON with a schema_version): delete it and compute again"
        ) from error
    if version != SCHEMA_VERSION:
        raise UnusableStoreError(
            f"{where} has schema_version {version!r}, this farm knows {SCHEMA_VERSION}: "
            "upgrade the farm, or use another store"
        )
    try:
        return CommitDocument.model_validate(fields)
    except ValidationError as error:
        raise CorruptArtifactError(
            f"{where} is no commit record: {error}; delete it and compute again"
        ) from error
