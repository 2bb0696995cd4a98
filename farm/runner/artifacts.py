"""What the store keeps: finished edits and the stages that they share; listed, fetched, deleted.

A stage (an inversion with its trained networks) belongs to all edits that used it. Deleting an edit
deletes what derives from it alone: its files, and those stages and the image that no other edit
uses. Deleting a stage leaves edits as they are; the next edit that needs it makes it anew.
"""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from farm.errors import InvalidRequestError, StoreError, UnavailableError
from farm.storage.commits import CommitRecord, CommittedFile, read_commit, read_file
from farm.storage.layout import (
    commit_key,
    edit_prefix,
    edits_prefix,
    input_key,
    lease_key,
    stage_prefix,
    stages_prefix,
)
from farm.storage.leases import acquire
from farm.storage.store import Store
from farm.storage.tensors import unpack_tensors

Kind = Literal["edit", "stage"]
Seen = Callable[[str], None]
"""Told the id of each artifact that was looked at."""

_LEASE_SECONDS = 60.0
_SHORTEST = 4
_TENSORS = ".safetensors"


@dataclass(frozen=True)
class Artifact:
    """A committed edit or stage.

    Attributes:
        kind: which of both.
        id: its digest.
        files: what was committed, by name.
        method: that made it; for a stage, of the edits that used it; None where no edit tells.
        model_set: likewise.
        image: SHA-256 of the image; likewise.
        stages: that an edit used, digests by name.
        name: a stage's name in its method; None where no edit tells.
        edits: that used a stage.
    """

    kind: Kind
    id: str
    files: Mapping[str, CommittedFile]
    method: str | None = None
    model_set: str | None = None
    image: str | None = None
    stages: Mapping[str, str] | None = None
    name: str | None = None
    edits: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


@dataclass(frozen=True)
class Deletion:
    """What a deletion removed.

    Attributes:
        edits: ids.
        stages: digests.
        inputs: SHA-256 of images.
        kept: stages and images that others still need.
        objects: number of objects.
    """

    edits: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    objects: int = 0


def list_artifacts(
    store: Store, tenant: str, *, seen: Seen = lambda _: None
) -> tuple[list[Artifact], list[Artifact]]:
    """All committed edits, and all committed stages; one small object is read for each.

    Raises:
        StoreError: the store cannot be read.
        CorruptArtifactError: a commit record is damaged.
    """
    edits = list(_edits(store, tenant, seen))
    used: dict[str, list[Artifact]] = {}
    for edit in edits:
        for digest in (edit.stages or {}).values():
            used.setdefault(digest, []).append(edit)
    stages: list[Artifact] = []
    for digest in _ids(store, stages_prefix(tenant)):
        seen(digest)
        record = read_commit(store, stage_prefix(tenant, digest))
        if record is not None:
            stages.append(_stage(digest, record, used.get(digest, [])))
    return edits, stages


def find_artifact(store: Store, tenant: str, text: str) -> tuple[Kind, str]:
    """The edit or stage of that id, which may be cut short where it stays the only one.

    Raises:
        InvalidRequestError: there is none, or there are several.
    """
    if len(text) < _SHORTEST or not text.isalnum():
        raise InvalidRequestError(
            f"{text!r} names no artifact: give its id, or the first {_SHORTEST} characters or more"
        )
    prefixes: dict[Kind, str] = {"edit": edits_prefix(tenant), "stage": stages_prefix(tenant)}
    found: list[tuple[Kind, str]] = [
        (kind, name)
        for kind, prefix in prefixes.items()
        for name in _ids(store, prefix, beginning=text)
        if store.exists(commit_key(prefix + name))
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidRequestError(
            f"no artifact {text!r} in {store.uri}: list them with `editfarm artifacts list`"
        )
    several = ", ".join(f"{kind} {name}" for kind, name in found)
    raise InvalidRequestError(f"{text!r} is the beginning of several: {several}; give more of it")


def artifact_files(
    store: Store, tenant: str, kind: Kind, name: str
) -> Iterator[tuple[str, CommittedFile, Callable[[], bytes]]]:
    """Each file of an artifact: its name, its size, and how to read it, checked against its digest.

    Raises:
        InvalidRequestError: the artifact is not committed.
    """
    target = _target(tenant, kind, name)
    record = read_commit(store, target)
    if record is None:
        raise InvalidRequestError(f"{kind} {name} is not in {store.uri}: list what there is")
    for file, about in record.files.items():

        def read(file: str = file) -> bytes:
            return read_file(store, target, record, file)

        yield file, about, read


def stage_facts(store: Store, tenant: str, digest: str) -> dict[str, str]:
    """What a stage's files say of themselves: the headers of its tensors; reads them whole.

    Raises:
        CorruptArtifactError: a file is not what was committed.
    """
    facts: dict[str, str] = {}
    for name, _, read in artifact_files(store, tenant, "stage", digest):
        if name.endswith(_TENSORS):
            facts |= unpack_tensors(read())[1]
    return facts


def delete_edit(store: Store, tenant: str, edit_id: str, *, keep_stages: bool = False) -> Deletion:
    """Delete an edit and, unless they are to be kept, the stages and the image of it alone.

    The commit record goes before the files, so that no committed file is ever missing; what a
    failure in between leaves behind is out of sight and only costs space. A stage that somebody is
    making again at this moment is kept.

    Raises:
        InvalidRequestError: there is no such edit.
        StoreError: the store failed.
    """
    edits = list(_edits(store, tenant, lambda _: None))
    if all(edit.id != edit_id for edit in edits):
        raise InvalidRequestError(f"no edit {edit_id} in {store.uri}: list what there is")
    return _delete(store, tenant, edits, [edit_id], keep_stages=keep_stages)


def delete_edits(
    store: Store,
    tenant: str,
    edit_ids: Sequence[str],
    *,
    stages: Iterable[str] = (),
    image: str | None = None,
    needed: Collection[str] = (),
    keep_stages: bool = False,
) -> Deletion:
    """As `delete_edit` for edits that belong together, in this order, committed or not.

    Args:
        store: where they lie.
        tenant: whose.
        edit_ids: may name edits that never came to a result.
        stages: digests of what these edits may have made besides what their commits name.
        image: SHA-256 of their image, which those that never came to a result do not name.
        needed: stages and images that edits need which are not committed yet.
        keep_stages: whether all stages are kept.

    Raises:
        StoreError: the store failed.
    """
    edits = list(_edits(store, tenant, lambda _: None))
    return _delete(
        store,
        tenant,
        edits,
        edit_ids,
        stages=stages,
        images=() if image is None else (image,),
        needed=needed,
        keep_stages=keep_stages,
    )


def _delete(
    store: Store,
    tenant: str,
    edits: Iterable[Artifact],
    edit_ids: Sequence[str],
    *,
    stages: Iterable[str] = (),
    images: Iterable[str] = (),
    needed: Collection[str] = (),
    keep_stages: bool,
) -> Deletion:
    own = [edit for edit in edits if edit.id in edit_ids]
    others = [edit for edit in edits if edit.id not in edit_ids]
    objects = sum(_remove(store, edit_prefix(tenant, edit_id)) for edit_id in edit_ids)
    used = {digest for edit in others for digest in (edit.stages or {}).values()}
    gone: list[str] = []
    kept: list[str] = []
    theirs = [digest for edit in own for digest in (edit.stages or {}).values()]
    for digest in dict.fromkeys([*theirs, *stages]):
        if keep_stages or digest in used or digest in needed:
            kept.append(digest)
        elif _has_objects(store, stage_prefix(tenant, digest)):
            try:
                objects += _remove_stage(store, tenant, digest)
                gone.append(digest)
            except StoreError:
                raise
            except UnavailableError:  # somebody makes it again
                kept.append(digest)
    inputs: list[str] = []
    shown = {edit.image for edit in others}
    for image in dict.fromkeys([*(e.image for e in own if e.image is not None), *images]):
        if image in shown or image in needed:
            kept.append(image)
        else:
            objects += _remove_object(store, input_key(tenant, image))
            inputs.append(image)
    return Deletion(
        tuple(edit.id for edit in own), tuple(gone), tuple(inputs), tuple(kept), objects
    )


def delete_stage(store: Store, tenant: str, digest: str) -> Deletion:
    """Delete a stage; edits that used it stay, and the next that needs it makes it anew.

    Raises:
        UnavailableError: somebody is making it at this moment.
        StoreError: the store failed.
    """
    if not store.exists(commit_key(stage_prefix(tenant, digest))):
        return Deletion()  # it went with the edit that alone had used it
    return Deletion(stages=(digest,), objects=_remove_stage(store, tenant, digest))


def _edits(store: Store, tenant: str, seen: Seen) -> Iterator[Artifact]:
    for edit_id in _ids(store, edits_prefix(tenant)):
        seen(edit_id)
        record = read_commit(store, edit_prefix(tenant, edit_id))
        if record is None:
            continue
        # not parsed as Provenance: edits of other versions of the farm are to be listed too
        about = record.extra.get("provenance")
        facts: Mapping[str, JsonValue] = about if isinstance(about, dict) else {}
        stages = facts.get("stages")
        yield Artifact(
            kind="edit",
            id=edit_id,
            files=record.files,
            method=_text(facts, "method"),
            model_set=_text(facts, "model_set"),
            image=_text(facts, "image_digest"),
            stages={
                name: digest
                for name, digest in (stages if isinstance(stages, dict) else {}).items()
                if isinstance(digest, str)
            },
        )


def _text(facts: Mapping[str, JsonValue], name: str) -> str | None:
    value = facts.get(name)
    return value if isinstance(value, str) else None


def _stage(digest: str, record: CommitRecord, users: Iterable[Artifact]) -> Artifact:
    users = list(users)
    names = [n for edit in users for n, d in (edit.stages or {}).items() if d == digest]
    first = users[0] if users else None
    return Artifact(
        kind="stage",
        id=digest,
        files=record.files,
        method=first.method if first else None,
        model_set=first.model_set if first else None,
        image=first.image if first else None,
        name=names[0] if names else None,
        edits=tuple(edit.id for edit in users),
    )


def _target(tenant: str, kind: Kind, name: str) -> str:
    return edit_prefix(tenant, name) if kind == "edit" else stage_prefix(tenant, name)


def _ids(store: Store, prefix: str, *, beginning: str = "") -> Iterator[str]:
    """Names of the targets below a prefix, each once; keys come in their order."""
    last = None
    for key in store.list(prefix + beginning):
        name = key.removeprefix(prefix).partition("/")[0]
        if name != last:
            last = name
            yield name


def _has_objects(store: Store, target: str) -> bool:
    return any(True for _ in store.list(f"{target}/"))


def _remove_stage(store: Store, tenant: str, digest: str) -> int:
    """Delete a stage while holding its lease, so that nobody makes it meanwhile."""
    target = stage_prefix(tenant, digest)
    lease = acquire(store, target, f"deletion-{uuid.uuid4().hex}", ttl=_LEASE_SECONDS)
    if lease is None:
        raise UnavailableError(
            f"stage {digest} is being made at this moment: wait for it, or cancel its edit"
        )
    try:
        removed = _remove(store, target)
        store.delete(lease_key(target))
    except StoreError:
        with suppress(StoreError):  # it will expire
            lease.release()
        raise
    return removed


def _remove(store: Store, target: str) -> int:
    """Delete a target's objects except its lease, the commit record first."""
    removed = _remove_object(store, commit_key(target))
    for key in list(store.list(f"{target}/")):
        if key != lease_key(target):
            removed += _remove_object(store, key)
    return removed


def _remove_object(store: Store, key: str) -> int:
    found = store.exists(key)
    store.delete(key)
    return int(found)
