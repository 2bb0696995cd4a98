"""What the store has of edits and their stages."""

from pydantic import JsonValue, ValidationError

from farm.errors import CorruptArtifactError, InvalidRequestError
from farm.requests import describe
from farm.results import SCHEMA_VERSION, EditResult, Provenance
from farm.runner.method import Files
from farm.storage.commits import CommitRecord, read_commit, read_file
from farm.storage.layout import attempt_file_key, edit_prefix, stage_prefix
from farm.storage.store import Store, UnusableStoreError


def result_of(edit_id: str, target: str, record: CommitRecord, *, reused: bool) -> EditResult:
    """A commit record as a result.

    Raises:
        UnusableStoreError: a newer farm wrote it.
        CorruptArtifactError: it is no edit's.
    """
    return EditResult(
        edit_id=edit_id,
        attempt=record.attempt,
        files={name: attempt_file_key(target, record.attempt, name) for name in record.files},
        provenance=_provenance(target, record.extra.get("provenance")),
        reused=reused,
    )


def _provenance(target: str, value: JsonValue) -> Provenance:
    """Of this version or an older one: what came later has defaults."""
    found = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise UnusableStoreError(
            f"{target!r} has provenance of schema_version {found}, this farm knows up to "
            f"{SCHEMA_VERSION}: upgrade the farm, or use another store"
        )
    try:
        return Provenance.model_validate(value)
    except ValidationError as error:
        raise CorruptArtifactError(
            f"the provenance of {target!r} is none ({describe(error)}): delete the edit with "
            "`editfarm artifacts delete` and compute it again"
        ) from error


def load_result(store: Store, tenant: str, edit_id: str) -> EditResult | None:
    """A committed edit, or None while there is none."""
    target = edit_prefix(tenant, edit_id)
    record = read_commit(store, target)
    return None if record is None else result_of(edit_id, target, record, reused=True)


def load_stage(store: Store, tenant: str, digest: str) -> Files:
    """All files of a committed stage.

    Raises:
        InvalidRequestError: there is none.
    """
    stage = stage_prefix(tenant, digest)
    record = read_commit(store, stage)
    if record is None:
        raise InvalidRequestError(f"no stage {digest} in {store.uri}: run the edit first")
    return {name: read_file(store, stage, record, name) for name in record.files}


def load_output(store: Store, result: EditResult, name: str) -> bytes:
    """One output of an edit by name, e.g. "edited.png".

    Raises:
        InvalidRequestError: the edit has no such output.
    """
    if name not in result.files:
        raise InvalidRequestError(
            f"edit {result.edit_id} has no output {name!r}; it has {', '.join(result.files)}"
        )
    return store.get(result.files[name])
