"""From an address to a store.

| address | store |
|---|---|
| `out/store`, `~/store`, `/data/store` | a directory |
| `file:///data/store` | the same, percent-encoded |
| `s3://bucket/prefix?endpoint_url=http://host:9000&region=eu-central-1` | S3, or what speaks it |
"""

import importlib
import re
import stat
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from farm.storage.keys import InvalidKeyError
from farm.storage.local import LocalStore
from farm.storage.store import Store, UnusableStoreError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_S3_OPTIONS = {"endpoint_url", "region"}


def open_store(uri: str, *, endpoint_url: str | None = None, region: str | None = None) -> Store:
    """The store at an address; nothing is written or connected to (see `check_writable`).

    Args:
        uri: a path, `file://` or `s3://` (table above). A relative path is made absolute here.
        endpoint_url: S3 only; goes before the address's own.
        region: S3 only; goes before the address's own.

    Raises:
        UnusableStoreError: an address that is none, or a path that is no directory.
    """
    if not uri or "\0" in uri:
        raise UnusableStoreError(f"{uri!r} is no store: give a path, file:///path or s3://bucket")
    if _SCHEME.match(uri) is None:
        return _open_local(Path(uri), endpoint_url, region)
    parts = _split(uri)
    match parts.scheme:
        case "file":
            if parts.netloc not in {"", "localhost"} or parts.query or not parts.path:
                raise UnusableStoreError(
                    f"{uri!r} names a host or options, or no path: write file:///absolute/path"
                )
            return _open_local(Path(unquote(parts.path)), endpoint_url, region)
        case "s3":
            return _open_s3(parts, endpoint_url, region)
        case _:
            raise UnusableStoreError(
                f"unknown scheme {parts.scheme!r} in {uri!r}: expected a path, file:// or s3:// "
                "(write ./ before a path that contains a colon)"
            )


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise UnusableStoreError(f"{uri!r} is no address: {error}") from error


def _open_local(path: Path, endpoint_url: str | None, region: str | None) -> LocalStore:
    if endpoint_url is not None or region is not None:
        raise UnusableStoreError(
            f"endpoint_url and region are for s3:// addresses, but the store is the path {path}"
        )
    try:
        root = path.expanduser().absolute()
        if _is_something_else(root):
            raise UnusableStoreError(f"the store {path} is no directory: choose another path")
    except (OSError, RuntimeError) as error:
        raise UnusableStoreError(
            f"cannot open the store {path}: {error}; choose another"
        ) from error
    return LocalStore(root)


def _is_something_else(root: Path) -> bool:
    try:
        return not stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        return False  # the first write makes it


def _open_s3(parts: SplitResult, endpoint_url: str | None, region: str | None) -> Store:
    bucket = parts.netloc
    if "@" in bucket:  # said without repeating it: there may be a secret in it
        raise UnusableStoreError(
            "an s3:// address holds no credentials: set AWS_ACCESS_KEY_ID and its companions"
        )
    if not bucket:
        raise UnusableStoreError(f"{parts.geturl()!r} names no bucket: write s3://bucket/prefix")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - _S3_OPTIONS)
    if unknown or parts.fragment:
        raise UnusableStoreError(
            f"{parts.geturl()!r} has {unknown or ['#' + parts.fragment]}, which mean nothing here: "
            f"options are {sorted(_S3_OPTIONS)}"
        )
    try:
        # by name: whoever keeps edits in a folder needs no boto3
        s3 = importlib.import_module("farm.storage.s3")
    except ModuleNotFoundError as error:
        raise UnusableStoreError(
            f"{parts.geturl()!r} needs {error.name}, which is not installed: "
            "pip install 'editfarm[s3]'"
        ) from error
    try:
        return s3.S3Store(
            bucket=bucket,
            prefix=unquote(parts.path).strip("/"),
            endpoint_url=endpoint_url or options.get("endpoint_url") or None,
            region=region or options.get("region") or None,
        )
    except InvalidKeyError as error:
        raise UnusableStoreError(f"{parts.geturl()!r} has a wrong prefix: {error}") from error
