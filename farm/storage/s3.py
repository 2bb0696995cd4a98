"""Amazon S3 and what speaks its dialect, as an object store. The one file that imports boto3.

Conditional writes as S3 defines them: `If-None-Match: *` creates, `If-Match: <etag>` compares and
swaps, 412 means that the condition does not hold, and 409 that another conditional write to the key
was under way, so that nothing is known yet and one has to ask again.
"""

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from farm.errors import StoreError
from farm.storage.keys import is_key, validate_key, validate_prefix
from farm.storage.store import (
    Entry,
    MissingKeyError,
    NoCredentialsYetError,
    UnusableStoreError,
    Version,
)

_CONNECT_TIMEOUT = 3.0  # seconds: a store that is not there is told at once
_READ_TIMEOUT = 60.0
_MAX_CONNECTIONS = 32

_HINTS = {
    "NoSuchBucket": "create the bucket, or correct its name, endpoint or region",
    "AccessDenied": "the credentials need s3:GetObject, PutObject, DeleteObject and ListBucket",
    "403": "the credentials need s3:GetObject, PutObject, DeleteObject and ListBucket",
    "InvalidAccessKeyId": "set credentials that this store knows",
    "SignatureDoesNotMatch": "set credentials that this store knows",
    "ExpiredToken": "renew the credentials",
    "InvalidBucketName": "correct the bucket's name",
    "PermanentRedirect": "the bucket is in another region: give region=",
    "301": "the bucket is in another region: give region=",
    "NotImplemented": "this server lacks conditional writes: use another",
}
_OLD_CREDENTIALS = {"ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_READ_TRIES = 3
_CHUNK_BYTES = 2**20
_T = TypeVar("_T")


@dataclass(frozen=True)
class S3Store:
    """Objects of one bucket, below `prefix` where it is not empty.

    Holds no connection, so it is made at once and pickles; credentials come from where AWS's tools
    look for them (environment, profile, instance role) on the machine that uses the store.
    """

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    conflict_delays: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    """Seconds to wait before asking again after 409."""

    def __post_init__(self) -> None:
        if self.prefix:
            validate_key(self.prefix)

    @property
    def uri(self) -> str:
        options = {"endpoint_url": self.endpoint_url, "region": self.region}
        query = urlencode({name: value for name, value in options.items() if value is not None})
        path = f"/{quote(self.prefix)}" if self.prefix else ""
        return f"s3://{self.bucket}{path}" + (f"?{query}" if query else "")

    def get(self, key: str) -> bytes:
        return self.get_with_version(key)[0]

    def get_with_version(self, key: str) -> tuple[bytes, Version]:
        where = self._where(key)
        with self._clear_errors("read", key), self._clear_absence(key):
            return _repeated(lambda: self._read_once(where))

    def put(self, key: str, data: bytes) -> Version:
        where = self._where(key)
        with self._clear_errors("write", key):
            return self._client.put_object(Body=data, **where)["ETag"]

    def put_if_absent(self, key: str, data: bytes) -> Version | None:
        return self._put_on_condition(key, data, IfNoneMatch="*")

    def put_if_match(self, key: str, data: bytes, version: Version) -> Version | None:
        return self._put_on_condition(key, data, IfMatch=version)

    def delete(self, key: str) -> None:
        where = self._where(key)
        with self._clear_errors("delete", key):
            self._client.delete_object(**where)

    def exists(self, key: str) -> bool:
        where = self._where(key)
        with self._clear_errors("read", key):
            try:
                self._client.head_object(**where)
            except ClientError as error:
                if _code(error) == "404":
                    return False
                raise
        return True

    def size(self, key: str) -> int:
        where = self._where(key)
        with self._clear_errors("read", key), self._clear_absence(key):
            try:  # one byte, as a reply to HEAD does not say what was wrong
                reply = self._client.get_object(Range="bytes=0-0", **where)
            except ClientError as error:
                if _code(error) in {"InvalidRange", "416"}:
                    return 0
                raise
            with closing(reply["Body"]):
                return int(reply["ContentRange"].rpartition("/")[2])

    def list(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str, *, deep: bool = True) -> Iterator[Entry]:
        return self._entries(validate_prefix(prefix), deep=deep)

    def names(self, prefix: str) -> Iterator[str]:
        return self._names(validate_prefix(prefix))

    def put_file(self, key: str, path: Path) -> None:
        where = self._where(key)
        with self._clear_errors("write", key), path.open("rb") as file:
            self._client.upload_fileobj(file, where["Bucket"], where["Key"])  # in parts

    def get_file(self, key: str, path: Path) -> None:
        where = self._where(key)

        def download() -> None:
            with path.open("wb") as file, closing(self._client.get_object(**where)["Body"]) as body:
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    file.write(chunk)

        with self._clear_errors("read", key), self._clear_absence(key):
            _repeated(download)

    def _entries(self, prefix: str, *, deep: bool) -> Iterator[Entry]:
        options = {} if deep else {"Delimiter": "/"}
        for page in self._pages(prefix, **options):
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._above)
                if is_key(key):  # consoles leave empty objects such as "a/"
                    yield Entry(key, found["Size"], found["LastModified"].timestamp())

    def _names(self, prefix: str) -> Iterator[str]:
        for page in self._pages(prefix, Delimiter="/"):
            found = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
            found += [each["Key"] for each in page.get("Contents", ())]
            found.sort()  # a page has all its prefixes before its keys
            names = (f.removeprefix(self._above + prefix).removesuffix("/") for f in found)
            yield from filter(is_key, names)

    def _pages(self, prefix: str, **options: str) -> Iterator[Any]:
        with self._clear_errors("list", prefix):
            yield from self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._above + prefix, **options
            )

    @property
    def _above(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _read_once(self, where: dict[str, str]) -> tuple[bytes, Version]:
        reply = self._client.get_object(**where)
        with closing(reply["Body"]) as body:  # its own `with` gives the stream below it
            return body.read(), reply["ETag"]

    def presigned_get(self, key: str, seconds: int, name: str) -> str:
        """An address by which anybody may read the object for so long, to save as `name`."""
        where = self._where(key)
        with self._clear_errors("sign", key):
            return self._client.generate_presigned_url(
                "get_object",
                Params={**where, "ResponseContentDisposition": f'attachment; filename="{name}"'},
                ExpiresIn=seconds,
            )

    def presigned_post(self, key: str, seconds: int, max_bytes: int) -> dict[str, Any]:
        """`url` and form `fields` by which anybody may write the object, once or again, so long."""
        where = self._where(key)
        with self._clear_errors("sign", key):
            return self._client.generate_presigned_post(
                **where,
                Conditions=[["content-length-range", 1, max_bytes]],
                ExpiresIn=seconds,
            )

    def _put_on_condition(self, key: str, data: bytes, **condition: str) -> Version | None:
        where = self._where(key)
        with self._clear_errors("write", key):
            delays = iter(self.conflict_delays)
            while True:
                try:
                    return self._client.put_object(Body=data, **where, **condition)["ETag"]
                except ClientError as error:
                    if _code(error) in {"PreconditionFailed", "412", "NoSuchKey"}:
                        return None  # NoSuchKey: If-Match, and the object is gone
                    delay = next(delays, None)
                    if _code(error) != "ConditionalRequestConflict" or delay is None:
                        raise
                time.sleep(delay)

    def _where(self, key: str) -> dict[str, str]:
        validate_key(key)
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    @property
    def _client(self) -> Any:
        return _client_of_process(os.getpid(), self.endpoint_url, self.region)

    @contextmanager
    def _clear_absence(self, key: str) -> Generator[None, None, None]:
        try:
            yield
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                raise MissingKeyError(f"there is no {key!r} in {self.uri}") from error
            raise

    @contextmanager
    def _clear_errors(self, action: str, key: str) -> Generator[None, None, None]:
        where = f"cannot {action} {key!r} in {self.uri}"
        try:
            yield
        except ClientError as error:
            hint = _HINTS.get(_code(error))
            if hint is None:
                raise StoreError(f"{where}: {error}; try again") from error
            if _code(error) in _OLD_CREDENTIALS:
                _client_of_process.cache_clear()  # the next one looks for renewed ones
                raise NoCredentialsYetError(f"{where}: {error}; {hint}") from error
            raise UnusableStoreError(f"{where}: {error}; {hint}") from error
        except NoCredentialsError as error:
            # A client looks for them once, when it is made; Ray lets a process live on for others.
            _client_of_process.cache_clear()
            raise NoCredentialsYetError(f"{where}: {error}; set AWS credentials") from error
        except (PartialCredentialsError, ProfileNotFound) as error:
            raise UnusableStoreError(f"{where}: {error}; set AWS credentials") from error
        except ParamValidationError as error:
            raise UnusableStoreError(f"{where}: {error}; correct the store's address") from error
        except BotoCoreError as error:
            raise StoreError(f"{where}: {error}; see that the address is right") from error
        except HTTPError as error:  # a reply torn in its middle, which botocore lets through
            raise StoreError(f"{where}: {error}; try again") from error
        except ValueError as error:  # how botocore refuses an endpoint that is no address
            raise UnusableStoreError(f"{where}: {error}; correct endpoint_url") from error


def _repeated(read: Callable[[], _T]) -> _T:
    """The SDK tries again until a reply begins; a reply that breaks off is ours to repeat."""
    for _ in range(_READ_TRIES - 1):
        with suppress(IncompleteReadError, ResponseStreamingError, HTTPError):
            return read()
    return read()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@lru_cache(maxsize=16)
def _client_of_process(process: int, endpoint_url: str | None, region: str | None) -> Any:
    """Clients are safe across threads, not across a fork: the process is part of the key."""
    del process
    options: dict[str, Any] = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": _READ_TIMEOUT,
        "max_pool_connections": _MAX_CONNECTIONS,
        "signature_version": "s3v4",  # else addresses would be signed in the old way
        "retries": {"mode": "standard"},  # three tries unless AWS_MAX_ATTEMPTS says otherwise
    }
    if endpoint_url is not None:  # other servers: often no names per bucket, no checksum trailers
        options["s3"] = {"addressing_style": "path"}
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    return Session().client(
        "s3", endpoint_url=endpoint_url, region_name=region, config=Config(**options)
    )
