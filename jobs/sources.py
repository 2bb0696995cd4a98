"""Where manifests and pictures are read from: files, and objects of an S3 bucket.

`s3://bucket/folder/edits.jsonl?endpoint_url=http://host:9000&region=eu-central-1` names an object
as `open_store` names a store. A relative path in such a manifest is relative to its folder, and is
a name as it stands: `50%.png` and `photo#1.png` are files of these names.
"""

from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote, urlsplit

from farm.errors import InvalidImageError, InvalidManifestError, InvalidRequestError, StoreError
from farm.requests import GENERATED
from farm.runner import read_image
from farm.storage.opening import open_store
from farm.storage.patient import PatientStore
from farm.storage.store import MissingKeyError, Store

_S3 = "s3://"
_PATIENCE = 20.0  # seconds
_LISTED_FOLDERS = 8  # whose listings are kept, so many pictures each

Signature = str
"""Tells a picture from an earlier one of the same name, without reading it."""


def is_remote(uri: str) -> bool:
    """Whether this names an object and no file."""
    return uri.startswith(_S3)


@contextmanager
def local_copy(uri: str) -> Generator[Path, None, None]:
    """A manifest as a local file; one from a bucket goes away afterwards.

    Raises:
        InvalidManifestError: there is none.
        StoreError: the bucket cannot be read.
    """
    if not is_remote(uri):
        yield Path(uri.removeprefix("file://"))
        return
    with TemporaryDirectory(prefix="editfarm-") as folder:
        try:
            store, key = _object(uri)
            path = Path(folder) / key.rpartition("/")[2]
            store.get_file(key, path)
        except (MissingKeyError, InvalidImageError) as error:
            raise InvalidManifestError(
                f"cannot read the manifest {uri}: {error.message}; check its address"
            ) from error
        yield path


@dataclass
class Pictures:
    """Pictures that a manifest names; not for several threads.

    Attributes:
        base: folder of the manifest, a path or `s3://bucket/folder?options`.
        patience: seconds to wait for a bucket that does not answer.
    """

    base: str
    patience: float = _PATIENCE
    _listed: "OrderedDict[str, Mapping[str, Signature]]" = field(
        default_factory=OrderedDict[str, Mapping[str, Signature]]
    )
    _forgotten: set[str] = field(default_factory=set[str])
    """Folders that were listed, and had to make room."""

    @classmethod
    def beside(cls, manifest: str, *, patience: float = _PATIENCE) -> "Pictures":
        """Relative to the folder of this manifest."""
        if not is_remote(manifest):
            return cls(str(Path(manifest.removeprefix("file://")).parent), patience)
        parts = urlsplit(manifest)
        folder = parts.path.rpartition("/")[0]
        return cls(parts._replace(path=folder).geturl(), patience)

    def read(self, uri: str) -> bytes:
        """Bytes of a picture; none for a source that is to be generated.

        Raises:
            InvalidImageError: there is no such picture, or none that can be had at this address.
            StoreError: the bucket does not answer, and may yet.
        """
        address = self._address(uri)
        if address is None:
            return read_image(uri, base=Path(self.base))
        try:
            store, key = _object(address, self.patience)
            return store.get(key)
        except (InvalidRequestError, StoreError) as error:
            if error.retryable:
                raise
            # this address alone, as far as anybody knows: no other row shall suffer for it
            raise InvalidImageError(f"{uri}: {error.message}; check its address") from error

    def signature(self, uri: str) -> Signature | None:
        """Size and time of writing; None where there is no such picture; `read` says why.

        Raises:
            StoreError: the bucket does not answer, and may yet.
        """
        if uri == GENERATED:
            return GENERATED
        try:
            address = self._address(uri)
            if address is not None:
                return self._object_signature(address)
            about = (Path(self.base) / uri.removeprefix("file://")).stat()
        except (InvalidRequestError, StoreError) as error:
            if error.retryable:
                raise
            return None
        except (OSError, ValueError):  # ValueError: no path at all, such as one with a null byte
            return None
        return f"{about.st_size}-{about.st_mtime_ns}"

    def _address(self, uri: str) -> str | None:
        """The address of an object, or None for a file.

        Raises:
            InvalidImageError: it lies above the bucket, or is none.
        """
        if is_remote(uri):
            return uri
        if not is_remote(self.base) or "://" in uri or uri == GENERATED:
            return None
        parts = urlsplit(self.base)
        return parts._replace(path=_below(parts.path, uri)).geturl()

    def _object_signature(self, address: str) -> Signature | None:
        """From a listing of its folder: one request for a thousand pictures.

        A folder is listed once: rows that go to and fro between many folders ask for each picture
        alone.
        """
        store, key = _object(address, self.patience)
        folder = key.rpartition("/")[0]
        name = f"{store.uri} {folder}"
        if name in self._forgotten:
            return _signatures(store, key).get(key)
        if name not in self._listed:
            self._listed[name] = _signatures(store, f"{folder}/" if folder else "")
            if len(self._listed) > _LISTED_FOLDERS:
                self._forgotten.add(self._listed.popitem(last=False)[0])
        return self._listed[name].get(key)


def _below(folder: str, name: str) -> str:
    """The path of an address, from that of a folder and a relative name, which is not encoded.

    Raises:
        InvalidImageError: it lies above the bucket, or is none.
    """
    if name.startswith("/"):
        raise InvalidImageError(
            f"{name}: a manifest in a bucket names pictures relative to its folder, or by an "
            "s3:// address"
        )
    segments = [segment for segment in folder.split("/") if segment]
    for segment in name.split("/"):
        if segment == "..":
            if not segments:
                raise InvalidImageError(f"{name}: lies above the manifest's bucket; see its ..")
            segments.pop()
        elif segment not in {"", "."}:
            segments.append(_quoted(segment))
    return "/" + "/".join(segments)


def _quoted(segment: str) -> str:
    try:
        return quote(segment, safe="")
    except ValueError as error:  # half a character
        raise InvalidImageError(f"{segment!r} is not valid Unicode: {error}") from error


def _signatures(store: Store, prefix: str) -> dict[str, Signature]:
    """Of the objects that start with a prefix, by key; not of those in folders below.

    Also where one object is meant: asked for its head, some servers tell coarser times.
    """
    return {e.key: f"{e.size}-{e.modified}" for e in store.entries(prefix, deep=False)}


def _object(uri: str, patience: float = _PATIENCE) -> tuple[Store, str]:
    """The store of an address, and the key in it.

    Raises:
        InvalidImageError: it is no address.
        UnusableStoreError: it names no store.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidImageError(f"{uri!r} is no address: {error}") from error
    store = open_store(parts._replace(path="").geturl())
    return PatientStore(store, patience=patience), unquote(parts.path).strip("/")
