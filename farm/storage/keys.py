"""What a key may be: the same rule for every store, so that no key works in one and not in another.

A key is a relative path with `/` between its segments: valid UTF-8 of at most 1024 bytes (S3's
limit), segments of 1 to 255 bytes (a file system's limit). No segment starts with a dot: that
excludes `.` and `..`, and leaves dot names to the stores for files of their own.
"""

import re

from farm.errors import InvalidRequestError

_MAX_KEY_BYTES = 1024
_MAX_SEGMENT_BYTES = 255
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc


class InvalidKeyError(InvalidRequestError):
    """A key that no store may hold."""


def validate_key(key: str) -> str:
    """The key itself, if it is one.

    Raises:
        InvalidKeyError: empty, absolute, over-long, or with a forbidden segment or character.
    """
    if len(_encoded(key)) > _MAX_KEY_BYTES:
        raise InvalidKeyError(f"key {key[:40]!r}… is longer than {_MAX_KEY_BYTES} bytes")
    for segment in key.split("/"):
        validate_segment(segment, within=key)
    return key


def validate_segment(segment: str, *, within: str | None = None) -> str:
    """The segment itself, if it may stand between two slashes of a key.

    Raises:
        InvalidKeyError: empty, over-long, with a leading dot, a slash or a control character.
    """
    wrong = _what_is_wrong(segment)
    if wrong is not None:
        key = segment if within is None else within
        raise InvalidKeyError(
            f"key {key!r}: segment {segment!r} {wrong}; keys are relative paths such as 'a/b.json'"
        )
    return segment


def validate_prefix(prefix: str) -> str:
    """The prefix itself, if some key may start with it; it may be empty or end in a slash.

    Raises:
        InvalidKeyError: as `validate_key`.
    """
    if prefix:
        validate_key(prefix.removesuffix("/"))
    return prefix


def is_key(text: str) -> bool:
    """Whether a name found in a store can be a key, or is somebody else's file."""
    try:
        validate_key(text)
    except InvalidKeyError:
        return False
    return True


def _what_is_wrong(segment: str) -> str | None:
    if not segment:
        return "is empty"
    if segment.startswith("."):
        return "starts with a dot"
    if "/" in segment:
        return "contains a slash"
    if _CONTROL.search(segment):
        return "contains a control character"
    if len(_encoded(segment)) > _MAX_SEGMENT_BYTES:
        return f"is longer than {_MAX_SEGMENT_BYTES} bytes"
    return None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidKeyError(f"key {text!r} is not valid Unicode: {error.reason}") from error
