"""What goes with a deleted edit: all that derives from it and that no other edit needs."""

from contextlib import suppress

from farm.errors import CorruptArtifactError, InvalidRequestError
from farm.runner import PreparedEdit
from farm.runner.artifacts import delete_edits
from farm.runner.auto import RESULT, nested_ids, with_nested
from farm.storage.commits import read_commit, read_file
from farm.storage.layout import edit_prefix
from farm.storage.store import MissingKeyError
from serve.intake import Intake
from serve.ledger import Ledger
from serve.records import EditRecord


def delete_results(ledger: Ledger, intake: Intake, record: EditRecord) -> None:
    """Delete an edit's files, with the stages and the picture of it alone; not its record.

    What an edit needs that is not finished is not in any commit. It is what the farm would run for
    its record, and stays until that edit is deleted. Edits that an `auto` edit did on its way have
    no record, so they go with it, unless the tenant asked for the same by name.

    Raises:
        StoreError: the store failed; the deletion can be asked for again.
    """
    named: set[str] = set()
    unfinished: list[EditRecord] = []
    for other in ledger.records(record.tenant):  # before the commits: what ends now is in one
        if other.id != record.id:
            named.add(other.edit_id)
            if not other.is_final and other.image_digest == record.image_digest:
                unfinished.append(other)
    if record.edit_id in named:
        return
    plans = [_plan(ledger, intake, other) for other in unfinished]
    awaited = [each for plan in plans if plan is not None for each in plan]
    needed = {other.image_digest for other in unfinished}
    needed |= {digest for each in awaited for digest in each.stages.values()}
    own = _plan(ledger, intake, record) or []
    spared = named | {each.edit_id for each in awaited}
    ids = {*_nested(ledger, record), *(each.edit_id for each in own), record.edit_id} - spared
    delete_edits(
        ledger.store,
        record.tenant,
        sorted(ids, key=lambda i: i == record.edit_id),  # the last names the others
        stages=[digest for each in own for digest in each.stages.values()],
        image=record.image_digest,
        needed=needed,
        keep_stages=None in plans,  # nobody can say what that edit needs
    )


def _plan(ledger: Ledger, intake: Intake, record: EditRecord) -> list[PreparedEdit] | None:
    """What the farm runs for a record; None where its picture is gone or the farm has changed."""
    for read in (ledger.image, ledger.kept_image):
        with suppress(MissingKeyError, InvalidRequestError):
            return with_nested(intake.prepare(record, read(record), ledger.mask(record)))
    return None


def _nested(ledger: Ledger, record: EditRecord) -> list[str]:
    """Edits that a finished `auto` edit says it did, also where the farm has changed since."""
    target = edit_prefix(record.tenant, record.edit_id)
    commit = read_commit(ledger.store, target)
    if commit is None or record.request.get("method") != "auto" or RESULT not in commit.files:
        return []
    try:
        return nested_ids(read_file(ledger.store, target, commit, RESULT))
    except CorruptArtifactError:  # what is damaged can be deleted, too
        return []
