"""What the farm asks of an object store: whole objects, and two kinds of conditional put.

Everything that must happen once rests on `put_if_absent` (commits) and `put_if_match` (leases).
Some servers accept both and ignore the condition; `check_writable` finds them out at the start.
"""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from farm.errors import StoreError

Version: TypeAlias = str
"""Names the content of an object (an ETag or a digest): equal content may have equal versions."""


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it.

    Attributes:
        key: of the object.
        size: in bytes.
        modified: Unix time of its latest writing, by the store's clock.
    """

    key: str
    size: int
    modified: float


class MissingKeyError(StoreError):
    """There is no object under this key."""

    retryable = False


class UnusableStoreError(StoreError):
    """The store will not serve until somebody changes something: address, rights, server."""

    retryable = False


class NoCredentialsYetError(StoreError):
    """No credentials were found, or old ones: a machine's own come from a service, in time or late.

    Retryable: whoever asks next looks for new ones.
    """


@runtime_checkable
class Store(Protocol):
    """Objects under keys (`farm.storage.keys`). Pickles; safe to use from many threads.

    A reader sees an object whole or not at all. Every method raises `InvalidKeyError` for a key
    that is none and `StoreError` for a store that cannot be read or written.
    """

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again; without credentials."""
        ...

    def get(self, key: str) -> bytes:
        """The object; raises `MissingKeyError` where there is none."""
        ...

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        """The object and the version that `put_if_match` compares; raises `MissingKeyError`."""
        ...

    def put(self, key: str, data: bytes) -> Version:
        """Write the object, whatever was there."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        """Write the object if there is none; None if there is one (perhaps ours: a lost reply)."""
        ...

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        """Write the object if its version is still this one; None if it is not, or is gone."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        ...

    def size(self, key: str) -> int:
        """Bytes of the object, which is not read; raises `MissingKeyError` where there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with these characters, in the order of their UTF-8 bytes."""
        ...

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        """As `list`, with size and time of each object; one request for many objects.

        Without `deep` only those with no further slash behind the prefix: what lies below costs
        nothing then.
        """
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """What follows a prefix that ends in a slash, up to the next slash; each name once.

        Some hundred requests tell what exists of a hundred thousand edits.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """`put` with the content of a local file, which is never whole in memory."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """`get` into a local file; raises `MissingKeyError` where there is none."""
        ...


def check_writable(store: Store) -> None:
    """Prove at the start that the store keeps what it is given and honours conditions.

    About eight requests, all on one object that is gone afterwards.

    Raises:
        StoreError: the store cannot be reached, read or written.
        UnusableStoreError: it can, but ignores `If-None-Match` or `If-Match`, so that two writers
            would both believe that they had won.
    """
    key = f"probes/{uuid.uuid4().hex}"
    try:
        _probe(store, key)
    except StoreError:
        with suppress(StoreError):  # the first failure says more than the clean-up's
            store.delete(key)
        raise
    store.delete(key)
    if store.exists(key):
        raise UnusableStoreError(f"{store.uri} still has an object after deleting it: {key!r}")


def _probe(store: Store, key: str) -> None:
    store.put(key, b"replaced")
    version = store.put(key, b"first")
    if store.get(key) != b"first":
        raise UnusableStoreError(f"{store.uri} does not return what was written to it")
    if store.put_if_absent(key, b"second") is not None:
        raise _ignores(store, "If-None-Match")
    changed = store.put_if_match(key, b"third", version)
    if changed is None and store.get(key) != b"third":
        raise UnusableStoreError(f"{store.uri} refuses If-Match with the version it just gave")
    if store.put_if_match(key, b"fourth", version) is not None:
        raise _ignores(store, "If-Match")


def _ignores(store: Store, header: str) -> UnusableStoreError:
    return UnusableStoreError(
        f"{store.uri} ignores {header}: conditional writes overwrite, so several writers would all "
        "win. Expected 412 for the second of two such writes. Use a store with conditional writes "
        "(Amazon S3, Ceph, MinIO, a local directory); a single-writer mode is not supported"
    )
