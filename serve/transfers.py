"""Addresses by which clients exchange files with the store itself, where it is S3."""

import uuid
from typing import Any

from farm.storage.layout import online_key
from farm.storage.s3 import S3Store
from farm.storage.store import Store

_SECONDS = 900


def presign_download(store: Store, key: str, name: str) -> str | None:
    """An address of an object for a quarter of an hour; None where the store cannot sign."""
    return store.presigned_get(key, _SECONDS, name) if isinstance(store, S3Store) else None


def presign_upload(store: Store, tenant: str, max_bytes: int) -> dict[str, Any] | None:
    """Where to post a picture of at most so many bytes, and what to call it in a submission."""
    if not isinstance(store, S3Store):
        return None
    name = uuid.uuid4().hex
    form = store.presigned_post(online_key(tenant, "uploads", name), _SECONDS, max_bytes)
    return {"image": f"uploads/{name}", "expires_in": _SECONDS, **form}
