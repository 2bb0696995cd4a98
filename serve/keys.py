"""API keys and tenants: a file of digests, written by `editfarm keys`, read by every replica.

A key is `ef_<id>_<secret>`; its secret has 256 random bits, so one round of SHA-256 is all that its
digest needs. Comparing takes the same time whatever is wrong: an unknown id is compared too.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from farm.errors import InvalidRequestError, UnavailableError
from farm.requests import describe
from serve.limits import TenantLimits

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_KEY = re.compile(r"ef_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"nobody").hexdigest()
_RELOAD_SECONDS = 2.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyEntry(_Strict):
    """A key as it is kept: without the key."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the secret."""
    created: datetime
    note: str = ""


class Tenant(_Strict):
    """Who owns edits; tenants never see each other's."""

    limits: TenantLimits = TenantLimits()
    webhook_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(32))
    """Shared with the receiver, so it is kept as it is."""
    keys: dict[str, KeyEntry] = {}
    """By the key's id."""


class KeyFile(_Strict):
    """The file."""

    version: Annotated[int, Field(ge=1, le=1)] = 1
    link_secret: str = Field(default_factory=lambda: secrets.token_urlsafe(32))
    """Signs download links."""
    tenants: dict[TenantName, Tenant] = {}


def read_keys(path: Path) -> KeyFile:
    """The file's content.

    Raises:
        InvalidRequestError: there is none, or it is not what `editfarm keys` writes.
    """
    try:
        return KeyFile.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(
            f"keys file {path}: {error.strerror}; make one with `editfarm keys add`"
        ) from error
    except ValidationError as error:
        raise InvalidRequestError(f"keys file {path}: {describe(error)}") from error


def write_keys(path: Path, keys: KeyFile) -> None:
    """Replace the file in one step; only its owner can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=".keys")  # mode 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(keys.model_dump(mode="json"), indent=1) + "\n")
    Path(staged).replace(path)


def add_key(keys: KeyFile, tenant: str, note: str = "") -> tuple[KeyFile, str]:
    """The file with one more key, and the key itself, which nobody can read again."""
    name, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    entry = KeyEntry(sha256=_digest(secret), created=datetime.now(UTC), note=note)
    owner = keys.tenants.get(tenant, Tenant())
    owner = owner.model_copy(update={"keys": {**owner.keys, name: entry}})
    changed = keys.model_copy(update={"tenants": {**keys.tenants, tenant: owner}})
    return KeyFile.model_validate(changed.model_dump()), f"ef_{name}_{secret}"


def revoke_key(keys: KeyFile, name: str) -> KeyFile:
    """The file without the key of that id.

    Raises:
        InvalidRequestError: there is no such key.
    """
    found = next((t for t, owner in keys.tenants.items() if name in owner.keys), None)
    if found is None:
        raise InvalidRequestError(f"no key {name!r}; list them with `editfarm keys list`")
    owner = keys.tenants[found]
    left = {key: entry for key, entry in owner.keys.items() if key != name}
    owner = owner.model_copy(update={"keys": left})
    return keys.model_copy(update={"tenants": {**keys.tenants, found: owner}})


class KeyRing:
    """The keys that count now: read again when the file changes, so that revoking takes effect.

    Args:
        path: of the file.
        clock: seconds, monotonic.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._file = read_keys(path)
        self._stamp = self._modified()
        self._next_look = clock() + _RELOAD_SECONDS

    def tenant_of(self, key: str) -> str | None:
        """Whose key it is, or None."""
        self._refresh()
        match = _KEY.fullmatch(key)
        name, secret = match.groups() if match else ("", "")
        owner, expected = None, _NOBODY
        for tenant, about in self._file.tenants.items():
            if name in about.keys:
                owner, expected = tenant, about.keys[name].sha256
        same = hmac.compare_digest(_digest(secret), expected)
        return owner if same else None

    @property
    def link_secret(self) -> bytes:
        return self._file.link_secret.encode()

    def tenants(self) -> Mapping[str, Tenant]:
        """All tenants by name."""
        self._refresh()
        return self._file.tenants

    def _refresh(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _RELOAD_SECONDS
        try:
            stamp = self._modified()
            if stamp != self._stamp:
                self._file, self._stamp = read_keys(self._path), stamp
        except InvalidRequestError as error:  # nobody gets in on keys that may be revoked
            self._next_look = now
            raise UnavailableError(error.message) from error

    def _modified(self) -> tuple[int, int]:
        try:
            about = self._path.stat()
        except OSError as error:
            raise InvalidRequestError(
                f"keys file {self._path}: {error.strerror}; make one with `editfarm keys add`"
            ) from error
        return about.st_mtime_ns, about.st_ino


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
