"""From what a client sends to an edit that is checked whole, and later to what the farm runs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from farm.errors import InvalidImageError, InvalidRequestError
from farm.images import decode_image, image_digest
from farm.requests import GENERATED, EditRequest, parse_request
from farm.runner import PreparedEdit, prepare
from farm.storage.keys import InvalidKeyError
from farm.storage.layout import input_key, online_key
from farm.storage.store import MissingKeyError, Store
from farm.zoo.model_sets import ModelSet
from serve.limits import RequestLimits, check_request
from serve.records import EditRecord, Priority

_INPUTS = "inputs/"
_UPLOADS = "uploads/"
_MISSING = "attach the picture as a file, or name it: inputs/<sha256>, or <store>://<key>"


@dataclass(frozen=True)
class Submission:
    """What a client asks for.

    Attributes:
        fields: of the `EditRequest`; `image` names a stored picture where none is attached.
        image: the attached picture.
        mask: the attached mask.
        priority: whether somebody waits for it.
        user: the client's own word for whoever asked.
        webhook: where to tell of the end.
        job: that it is a line of.
    """

    fields: Mapping[str, Any]
    image: bytes | None = None
    mask: bytes | None = None
    priority: Priority = "interactive"
    user: str | None = None
    webhook: str | None = None
    job: str | None = None

    def digest(self) -> str:
        """Of everything in it: equal submissions have equal ones."""
        about = [self.fields, self.priority, self.user, self.webhook]
        text = json.dumps(about, sort_keys=True, default=str)
        files = [hashlib.sha256(file or b"").digest() for file in (self.image, self.mask)]
        return hashlib.sha256(text.encode() + b"".join(files)).hexdigest()


@dataclass(frozen=True)
class CheckedEdit:
    """A submission that can be run.

    Attributes:
        request: as it is recorded.
        edit_id: what determines the result.
        image: the picture's bytes; empty where the source is generated.
        mask: the mask's bytes.
        image_digest: SHA-256 of the picture.
        pixels: of the picture.
    """

    request: dict[str, Any]
    edit_id: str
    image: bytes
    mask: bytes | None
    image_digest: str
    pixels: int


class Intake:
    """Checks submissions for one model set.

    Args:
        store: the farm's own, where tenants' earlier images lie.
        model_set: the one that this farm serves.
        limits: of a request.
        image_stores: stores that requests may name images in.
    """

    def __init__(
        self,
        store: Store,
        model_set: ModelSet,
        limits: RequestLimits,
        image_stores: Mapping[str, Store],
    ) -> None:
        self._store, self.limits, self._image_stores = store, limits, image_stores
        # a folder's path is nobody's business, and would stand in every result
        self.model_set = replace(model_set, name=public_name(model_set))

    def check(self, tenant: str, submission: Submission) -> CheckedEdit:
        """Everything that can be refused without a network.

        Raises:
            InvalidRequestError: or one of its children, saying what to change.
            StoreError: a named image cannot be read.
        """
        fields = dict(submission.fields)
        image = submission.image
        if image is None:
            image = self._named_image(tenant, fields.get("image"))
        elif "image" in fields:
            raise InvalidRequestError("there are two images, one attached and one named: send one")
        fields["priority"] = submission.priority
        fields["image"] = GENERATED if fields.get("image") == GENERATED else image_digest(image)
        mask = self._mask(tenant, submission, fields)
        request = self._parse(fields)
        pixels = self._check_image(image)
        prepared = prepare(request, image, self.model_set, mask=mask)
        return CheckedEdit(
            {"method": request.method, **request.model_dump(mode="json", exclude_unset=True)},
            prepared.edit_id,
            image,
            mask,
            prepared.image_digest,
            pixels,
        )

    def prepare(self, record: EditRecord, image: bytes, mask: bytes | None) -> PreparedEdit:
        """What the farm runs for a record.

        Raises:
            InvalidRequestError: the farm has changed, and would refuse it today.
        """
        return prepare(parse_request(record.request), image, self.model_set, mask=mask)

    def read_manifest(self, name: str) -> bytes:
        """A job's lines, from where `<store>://<key>` names them.

        Raises:
            InvalidRequestError: no such store, no such object in it, or it is too large.
        """
        return self._read_named(name, self.limits.max_manifest_bytes)

    def _read_named(self, name: str, most: int) -> bytes:
        where, separator, key = name.partition("://")
        store = self._image_stores.get(where) if separator else None
        if store is None:
            known = ", ".join(f"{store}://" for store in self._image_stores) or "none"
            raise InvalidRequestError(
                f"{name!r:.80} names no store of this farm (there is {known}): addresses are never "
                f"fetched; {_MISSING}"
            )
        return _read(store, key, name, most)

    def _named_image(self, tenant: str, name: Any) -> bytes:
        if not isinstance(name, str) or not name:
            raise InvalidImageError(f"there is no image: {_MISSING}")
        if name == GENERATED:
            return b""
        if name.startswith(_INPUTS):
            return _read(self._store, _input(tenant, name.removeprefix(_INPUTS)), name)
        if name.startswith(_UPLOADS):
            return _read(self._store, _upload(tenant, name.removeprefix(_UPLOADS)), name)
        return self._read_named(name, self.limits.max_image_bytes)

    def _mask(self, tenant: str, submission: Submission, fields: dict[str, Any]) -> bytes | None:
        """The mask, attached or named; whether the method takes one is the request's to say."""
        mask = submission.mask
        if mask is None and fields.get("mask") is None:
            return None
        if mask is None:
            mask = self._named_image(tenant, fields["mask"])
        elif "mask" in fields:
            raise InvalidRequestError("there are two masks, one attached and one named: send one")
        decode_image(mask, limits=self.limits.images)
        fields["mask"] = image_digest(mask)
        return mask

    def _parse(self, fields: dict[str, Any]) -> EditRequest:
        served = self.model_set.name
        asked = fields.setdefault("model_set", served)
        if asked != served:
            raise InvalidRequestError(f"model_set {asked!r:.80} is not served here: {served!r} is")
        request = parse_request(fields)
        check_request(request, self.limits)
        return request

    def _check_image(self, image: bytes) -> int:
        if not image:
            return self.model_set.spec.image_size**2
        decoded = decode_image(image, limits=self.limits.images).image
        return decoded.shape[-1] * decoded.shape[-2]


def public_name(model_set: ModelSet) -> str:
    """A model set's name without the path of its folder."""
    return model_set.name.rstrip("/").rpartition("/")[2]


def _input(tenant: str, digest: str) -> str:
    try:
        return input_key(tenant, digest)
    except InvalidKeyError as error:
        raise InvalidRequestError("inputs/ is followed by a SHA-256 in hexadecimal") from error


def _upload(tenant: str, name: str) -> str:
    try:
        return online_key(tenant, "uploads", name)
    except InvalidKeyError as error:
        raise InvalidRequestError("uploads/ is followed by the name of an upload") from error


def _read(store: Store, key: str, name: str, most: int | None = None) -> bytes:
    try:
        if most is not None and (size := store.size(key)) > most:  # what is not ours to write
            raise InvalidRequestError(
                f"{name!r:.200} has {size:,} bytes, and {most:,} is the most: make it smaller"
            )
        return store.get(key)
    except MissingKeyError as error:
        raise InvalidRequestError(
            f"there is no {name!r:.200}; see that its name is right"
        ) from error
    except InvalidKeyError as error:
        raise InvalidRequestError(
            f"{name!r:.200} is no name of an object: write <store>://folder/picture.png"
        ) from error
