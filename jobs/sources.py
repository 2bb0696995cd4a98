"""Where manifests and pictures are read from: files, and objects of an S3 bucket.

`s3://bucket/folder/edits.jsonl?endpoint_url=http://host:9000&region=eu-central-1` names an object
as `open_store` names a store. A relative path in such a manifest is relative to its folder.
"""

from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from farm.errors import InvalidImageError, InvalidManifestError
from farm.requests import GENERATED
from farm.runner import read_image
from farm.storage.opening import open_store
from farm.storage.patient import PatientStore
from farm.storage.store import MissingKeyError, Store

_S3 = "s3://"
_PATIENCE = 20.0  # seconds
_LISTED_FOLDERS = 8

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
    store, key = _object(uri)
    with TemporaryDirectory(prefix="editfarm-") as folder:
        path = Path(folder) / key.rpartition("/")[2]
        try:
            store.get_file(key, path)
        except MissingKeyError as error:
            raise InvalidManifestError(
                f"cannot read the manifest {uri}: {error.message}; check its address"
            ) from error
        yield path


@dataclass
class Pictures:
    """Pictures that a manifest names; not for several threads.

    Attributes:
        base: folder of the manifest, a path or `s3://bucket/folder?options`.
    """

    base: str
    _listed: "OrderedDict[str, Mapping[str, Signature]]" = field(
        default_factory=OrderedDict[str, Mapping[str, Signature]]
    )

    @classmethod
    def beside(cls, manifest: str) -> "Pictures":
        """Relative to the folder of this manifest."""
        if not is_remote(manifest):
            return cls(str(Path(manifest.removeprefix("file://")).parent))
        parts = urlsplit(manifest)
        folder = parts.path.rpartition("/")[0]
        return cls(parts._replace(path=folder).geturl())

    def read(self, uri: str) -> bytes:
        """Bytes of a picture; none for a source that is to be generated.

        Raises:
            InvalidImageError: there is no such picture.
            StoreError: the bucket cannot be read.
        """
        address = self._address(uri)
        if address is None:
            return read_image(uri, base=Path(self.base))
        store, key = _object(address)
        try:
            return store.get(key)
        except MissingKeyError as error:
            raise InvalidImageError(f"{uri}: {error.message}; check its address") from error

    def signature(self, uri: str) -> Signature | None:
        """Size and time of writing; None where there is no such picture."""
        if uri == GENERATED:
            return GENERATED
        address = self._address(uri)
        if address is not None:
            return self._object_signature(address)
        try:
            about = (Path(self.base) / uri.removeprefix("file://")).stat()
        except OSError:
            return None
        return f"{about.st_size}-{about.st_mtime_ns}"

    def _address(self, uri: str) -> str | None:
        """The address of an object, or None for a file."""
        if is_remote(uri):
            return uri
        if not is_remote(self.base) or "://" in uri or uri == GENERATED:
            return None
        parts = urlsplit(self.base)
        return parts._replace(path=f"{parts.path}/{uri}").geturl()

    def _object_signature(self, address: str) -> Signature | None:
        """From a listing of its folder: one request for a thousand pictures."""
        store, key = _object(address)
        folder = key.rpartition("/")[0]
        name = f"{store.uri} {folder}"
        if name not in self._listed:
            prefix = f"{folder}/" if folder else ""
            self._listed[name] = {e.key: f"{e.size}-{e.modified}" for e in store.entries(prefix)}
            while len(self._listed) > _LISTED_FOLDERS:
                self._listed.popitem(last=False)
        return self._listed[name].get(key)


def _object(uri: str) -> tuple[Store, str]:
    parts = urlsplit(uri)
    store = open_store(parts._replace(path="").geturl())
    return PatientStore(store, patience=_PATIENCE), unquote(parts.path).strip("/")
