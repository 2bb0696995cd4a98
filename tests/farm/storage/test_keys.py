import pickle
import posixpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.errors import InvalidRequestError
from farm.storage.keys import (
    InvalidKeyError,
    is_key,
    validate_key,
    validate_prefix,
    validate_segment,
)

LIKELY_WRONG = st.text(alphabet="a./\\ \n\x00\x7f\x85é\ud800", max_size=8)


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=40) | LIKELY_WRONG)
def test_whatever_is_accepted_stays_below_the_root(key):
    if is_key(key):
        inside = posixpath.normpath(posixpath.join("/root", key))
        assert inside == f"/root/{key}"  # nothing collapsed: no "..", no ".", no "//"
        assert key.encode().decode() == key
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in key)
    else:
        with pytest.raises(InvalidKeyError):
            validate_key(key)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/"),
            min_size=1,
            max_size=20,
        ).filter(lambda segment: not segment.startswith(".")),
        min_size=1,
        max_size=5,
    )
)
def test_segments_without_dots_controls_and_slashes_make_a_key(segments):
    key = "/".join(segments)
    assert validate_key(key) == key
    assert validate_prefix(key + "/") == key + "/"


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a/./b", ".hidden", "a\nb", "a\0b", "\ud800"],
)
def test_what_is_no_key_is_refused(key):
    with pytest.raises(InvalidKeyError):
        validate_key(key)


def test_limits_count_bytes():
    assert is_key("é" * 127) is True  # 254 bytes
    assert is_key("é" * 128) is False  # 256, and a file system stops at 255
    assert is_key("/".join(["a" * 127] * 8)) is True  # 8 * 128 - 1 = 1023 bytes
    assert is_key("/".join(["a" * 127] * 8) + "aa") is False


def test_a_segment_has_no_slash():
    assert validate_segment("a.b") == "a.b"
    with pytest.raises(InvalidKeyError, match="slash"):
        validate_segment("a/b")


def test_the_error_says_what_is_wrong_and_is_the_callers():
    with pytest.raises(InvalidKeyError, match=r"'a/\.\./b': segment '\.\.' starts with a dot") as e:
        validate_key("a/../b")
    assert isinstance(e.value, InvalidRequestError)
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
