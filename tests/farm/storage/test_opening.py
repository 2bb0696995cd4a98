import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.storage.keys import is_key
from farm.storage.local import LocalStore
from farm.storage.opening import open_store
from farm.storage.s3 import S3Store
from farm.storage.store import UnusableStoreError


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("out/store") == LocalStore(tmp_path / "out/store")
    assert open_store(str(tmp_path)) == LocalStore(tmp_path)
    assert open_store("~/store") == LocalStore(tmp_path / "home/store")
    assert open_store("./s3:x") == LocalStore(tmp_path / "s3:x")
    assert list(tmp_path.iterdir()) == []  # opening writes nothing


def test_file_addresses(tmp_path):
    assert open_store("file:///data/a%20b") == LocalStore(Path("/data/a b"))
    assert open_store("file://localhost/data") == LocalStore(Path("/data"))
    store = LocalStore(tmp_path / "a b#c?d%é")
    assert open_store(store.uri) == store


def test_s3_addresses():
    assert open_store("s3://bucket") == S3Store("bucket")
    assert open_store("s3://bucket/") == S3Store("bucket")
    assert open_store("s3://bucket/a/b/") == S3Store("bucket", "a/b")
    uri = "s3://bucket/a?endpoint_url=http://host:9000&region=eu-central-1"
    assert open_store(uri) == S3Store("bucket", "a", "http://host:9000", "eu-central-1")
    assert open_store(uri, endpoint_url="http://x", region="r") == S3Store(
        "bucket", "a", "http://x", "r"
    )


SEGMENTS = st.text(max_size=10).filter(is_key)


@settings(deadline=None)  # the machine may be busy
@given(SEGMENTS | st.just(""), st.none() | st.just("http://h:1/p?a=b&c#d"), st.none() | SEGMENTS)
def test_an_s3_address_opens_its_store(prefix, endpoint_url, region):
    store = S3Store("bucket", prefix, endpoint_url, region)
    assert open_store(store.uri) == store


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "is no store"),
        ("a\0b", "is no store"),
        ("gs://bucket/a", "unknown scheme 'gs'"),
        ("s3:/bucket", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("s3://bucket/a?endpoint=http://h", "endpoint.*options are"),
        ("s3://bucket/a#b", "#b"),
        ("s3://bucket/a/../b", "wrong prefix.*starts with a dot"),
        ("s3://[bucket", "is no address"),
        ("file://host/data", "names a host"),
        ("file:", "no path"),
        ("~nobody-of-this-name/store", "choose another"),
    ],
)
def test_what_is_no_store_is_refused(uri, message):
    with pytest.raises(UnusableStoreError, match=message):
        open_store(uri)


def test_secrets_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(UnusableStoreError, match="no credentials") as caught:
        open_store("s3://key:hunter2@bucket/a")
    assert "hunter2" not in str(caught.value)


def test_s3_options_do_not_fit_a_path(tmp_path):
    with pytest.raises(UnusableStoreError, match="endpoint_url and region are for s3"):
        open_store(str(tmp_path), endpoint_url="http://h")


@pytest.mark.parametrize("path", ["file", "file/sub", "file/sub/sub"])
def test_a_path_that_cannot_be_a_directory(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableStoreError, match=r"(Not a|no) directory"):
        open_store(str(tmp_path / path))


def test_s3_without_its_packages_says_what_to_install(monkeypatch):
    for name in ("farm.storage.s3", "boto3.session"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)  # how Python marks what is not there
    with pytest.raises(UnusableStoreError, match=r"needs boto3.*pip install 'editfarm\[s3\]'"):
        open_store("s3://bucket/a")
