"""One computation for all who need its result at once: compute it, or wait for who does.

Stages are named by a digest of what determines them, so it does not matter who computes one; the
lease only keeps others from doing the same work meanwhile.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress

from farm.errors import EditCancelledError, StoreError
from farm.storage.checkpoints import clear_checkpoints
from farm.storage.commits import CommitRecord, commit, read_commit
from farm.storage.leases import Clock, Lease, LeaseLostError, acquire
from farm.storage.store import Store

Compute = Callable[[Lease], Mapping[str, bytes]]


def wait_or_compute(
    store: Store,
    target: str,
    owner: str,
    compute: Compute,
    *,
    ttl: float,
    poll: float,
    clock: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[CommitRecord, bool]:
    """The commit of a stage, and whether this call ran `compute` to get it.

    Args:
        store: where.
        target: prefix of the stage (farm.storage.layout.stage_prefix).
        owner: who asks: `name/uuid`, with a new uuid for each run. A run takes over at once from an
            earlier one of its name: somebody knows that it died, and started another.
        compute: content of the stage's files by name. It should keep its lease, by
            `farm.storage.leases.renewing` or by `lease.renew_if_due()` at steps that are shorter
            than a third of `ttl`, and may save and load checkpoints (farm.storage.checkpoints).
        ttl: seconds after which a holder that does not renew is taken for dead.
        poll: seconds between looks while somebody else computes.
        clock: seconds of Unix time.
        sleep: waits so many seconds.
        should_stop: asked before each wait and before computing.

    Raises:
        EditCancelledError: `should_stop` said so.
        StoreError: the store failed.
        Exception: whatever `compute` raises, except the loss of its lease; the lease is released,
            the checkpoints stay, and the next in line resumes.
    """
    computed, inherits = False, True
    while (record := read_commit(store, target)) is None:
        if should_stop():
            raise EditCancelledError(f"stopped before the stage {target!r} was there")
        lease = acquire(store, target, owner, ttl=ttl, clock=clock, inherits=inherits)
        if lease is None:
            sleep(poll)
            continue
        try:
            if read_commit(store, target) is not None:  # between our look and our lease
                continue
            computed = True
            _compute_and_commit(store, target, compute, lease)
        except LeaseLostError:
            inherits = False  # taken for dead: who runs in our place shall not lose it to us
            continue  # we were too slow, and another took over: wait for it like anybody else
        finally:
            with suppress(StoreError):  # it will expire
                lease.release()
    return record, computed


def _compute_and_commit(store: Store, target: str, compute: Compute, lease: Lease) -> None:
    files = compute(lease)
    commit(
        store,
        target,
        attempt=uuid.uuid4().hex,
        files=files,
        extra={"owner": lease.owner, "epoch": lease.epoch},
    )
    with suppress(StoreError):  # the commit is what counts; orphans are swept
        clear_checkpoints(store, target)
