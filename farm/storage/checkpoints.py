"""How far the holder of a lease got, so that whoever takes over need not start again.

Each epoch has a checkpoint of its own: a holder that does not know yet that it lost its lease
overwrites nothing of its successor's.
"""

import hashlib

from farm.storage.layout import checkpoint_key, checkpoints_prefix
from farm.storage.leases import Lease
from farm.storage.store import MissingKeyError, Store

_DIGEST_BYTES = hashlib.sha256().digest_size


def save_checkpoint(store: Store, target: str, data: bytes, lease: Lease) -> None:
    """Keep this as the state of the lease's epoch, in place of its earlier one."""
    store.put(checkpoint_key(target, lease.epoch), hashlib.sha256(data).digest() + data)


def load_checkpoint(store: Store, target: str) -> bytes | None:
    """The state of the newest epoch that has a whole one, or None.

    A checkpoint that does not match its digest is passed over: it is a short cut, no more.
    """
    for key in sorted(store.list(checkpoints_prefix(target)), reverse=True):
        try:
            stored = store.get(key)
        except MissingKeyError:
            continue  # cleared meanwhile: the target is committed
        digest, data = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() == digest:
            return data
    return None


def clear_checkpoints(store: Store, target: str) -> None:
    """Delete them all: the target is committed."""
    for key in list(store.list(checkpoints_prefix(target))):
        store.delete(key)
