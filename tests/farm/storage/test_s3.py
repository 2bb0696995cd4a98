"""What only a server and the wire to it can do wrong."""

import base64
import json
import pickle
import socket
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import boto3
import pytest
from botocore.response import StreamingBody
from urllib3.exceptions import SSLError

from farm.errors import StoreError
from farm.storage.patient import PatientStore
from farm.storage.s3 import S3Store
from farm.storage.store import (
    MissingKeyError,
    NoCredentialsYetError,
    UnusableStoreError,
    check_writable,
)
from tests.farm.storage.servers import answers, breaks_off, loses_reply

CONFLICT = ("PUT", answers("409 Conflict", "ConditionalRequestConflict"))


def test_a_conflict_is_asked_about_again(s3_store, wire):
    wire.faults += [CONFLICT, CONFLICT]
    version = s3_store.put_if_absent("k", b"1")
    assert version is not None
    wire.faults += [CONFLICT]
    assert s3_store.put_if_absent("k", b"2") is None
    wire.faults += [CONFLICT]
    assert s3_store.put_if_match("k", b"3", version) is not None
    assert s3_store.get("k") == b"3"


def test_endless_conflict_is_an_error_to_retry(s3_store, wire):
    wire.faults += [CONFLICT] * 3  # one more than there are delays
    with pytest.raises(StoreError, match="ConditionalRequestConflict") as caught:
        s3_store.put_if_absent("k", b"1")
    assert caught.value.retryable
    assert not s3_store.exists("k")


def test_a_busy_server_is_asked_again(s3_store, wire):
    wire.faults += [("PUT", answers("503 Slow Down", "SlowDown"))]
    s3_store.put("k", b"1")
    assert s3_store.get("k") == b"1"


def test_a_lost_reply_looks_like_a_refusal(s3_store, wire):
    """So the layers above must compare: here the client's own retry meets what it wrote."""
    wire.faults += [("PUT", loses_reply)]
    assert s3_store.put_if_absent("k", b"mine") is None
    assert s3_store.get("k") == b"mine"


def test_a_reply_that_breaks_off_is_read_again(s3_store, wire):
    s3_store.put("k", b"0123456789" * 1000)
    wire.faults += [("GET", breaks_off)]
    assert s3_store.get("k") == b"0123456789" * 1000
    wire.faults += [("GET", breaks_off)] * 3
    with pytest.raises(StoreError) as caught:
        s3_store.get("k")
    assert caught.value.retryable


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(s3_store, wire, header):
    wire.ignored_headers.add(header)
    with pytest.raises(UnusableStoreError, match=f"ignores {header}"):
        check_writable(s3_store)
    assert list(s3_store.list("")) == []


def test_listing_goes_on_after_the_first_page(s3_store, endpoint, monkeypatch):
    keys = [f"k/{i:02d}" for i in range(7)]
    for key in keys:
        s3_store.put(key, b"")
    whole = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    get_paginator = whole.get_paginator

    class SmallPages:
        def paginate(self, **options):
            return get_paginator("list_objects_v2").paginate(
                **options, PaginationConfig={"PageSize": 3}
            )

    whole.get_paginator = lambda _: SmallPages()
    monkeypatch.setattr(S3Store, "_client", property(lambda _: whole))
    assert list(s3_store.list("k/")) == keys


def test_folder_marks_of_consoles_are_not_listed(s3_store, endpoint):
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.put_object(Bucket=s3_store.bucket, Key=f"{s3_store.prefix}/a/", Body=b"")
    s3_store.put("a/b", b"")
    assert list(s3_store.list("")) == ["a/b"]


def test_a_prefix_is_a_store_of_its_own(s3_store):
    other = replace(s3_store, prefix=s3_store.prefix + "x")
    s3_store.put("k", b"1")
    assert list(other.list("")) == []
    whole = replace(s3_store, prefix="")
    assert whole.get(f"{s3_store.prefix}/k") == b"1"
    assert f"{s3_store.prefix}/k" in list(whole.list(s3_store.prefix))


def test_a_bucket_that_is_not_there(s3_store):
    store = replace(s3_store, bucket="nowhere")
    with pytest.raises(UnusableStoreError, match=r"s3://nowhere.*create the bucket"):
        check_writable(store)
    with pytest.raises(UnusableStoreError, match="create the bucket"):
        list(store.list(""))
    with pytest.raises(UnusableStoreError, match="create the bucket") as caught:
        store.get("k")
    assert not isinstance(caught.value, MissingKeyError)


def test_a_bucket_name_that_is_none(s3_store):
    with pytest.raises(UnusableStoreError, match="correct the store's address"):
        check_writable(replace(s3_store, bucket="no bucket!"))


def test_rights_that_lack(s3_store, wire):
    wire.faults += [("PUT", answers("403 Forbidden", "AccessDenied"))]
    with pytest.raises(UnusableStoreError, match="PutObject, DeleteObject") as caught:
        check_writable(s3_store)
    assert not caught.value.retryable


def test_rights_to_look_that_lack(s3_store, wire):
    wire.faults += [("HEAD", answers("403 Forbidden", "AccessDenied"))]
    with pytest.raises(StoreError, match="cannot read 'k'"):
        s3_store.exists("k")


def test_a_list_that_breaks_off_is_an_error_to_retry(s3_store, wire):
    s3_store.put("k", b"1")
    wire.faults += [("GET", breaks_off)] * 3  # the client asks three times by itself
    with pytest.raises(StoreError, match="cannot list") as caught:
        list(s3_store.list(""))
    assert caught.value.retryable
    assert list(s3_store.list("")) == ["k"]


def test_a_line_that_breaks_below_the_sdk_is_an_error_to_retry(s3_store, monkeypatch):
    """Of what urllib3 says while a body is read, botocore translates but a part."""

    def read(*_arguments):
        raise SSLError("bad record")

    s3_store.put("k", b"1")
    monkeypatch.setattr(StreamingBody, "read", read)
    with pytest.raises(StoreError, match=r"cannot read 'k'.*bad record; try again") as caught:
        s3_store.get("k")
    assert caught.value.retryable


def test_an_address_to_download_from(s3_store):
    s3_store.put("k", b"as it is")
    address = s3_store.presigned_get("k", 60, "edited.png")
    with urlopen(address) as reply:
        assert reply.read() == b"as it is"
    query = parse_qs(urlsplit(address).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["response-content-disposition"] == ['attachment; filename="edited.png"']


def test_a_form_to_upload_with(s3_store):
    form = s3_store.presigned_post("k", 60, 1000)
    policy = json.loads(base64.b64decode(form["fields"]["policy"]))
    assert ["content-length-range", 1, 1000] in policy["conditions"]
    assert form["fields"]["key"] == f"{s3_store.prefix}/k"
    assert form["url"].endswith(f"/{s3_store.bucket}")


def test_without_an_endpoint_addresses_are_those_of_aws(s3_store):
    """With the bucket in the host's name, as AWS wants it; signing asks nobody."""
    store = S3Store("bucket", region="eu-west-1")
    host = urlsplit(store.presigned_get("k", 60, "k")).hostname
    assert host is not None
    assert host.startswith("bucket.s3.")
    assert host.endswith("amazonaws.com")


def test_nobody_listens(s3_store, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with socket.socket() as reserved:  # bound, not listening: nobody else can take the port
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        store = replace(s3_store, endpoint_url=endpoint)
        with pytest.raises(StoreError, match=r"cannot write .*Could not connect") as caught:
            check_writable(store)
    assert caught.value.retryable


def test_an_endpoint_that_is_no_address(s3_store):
    with pytest.raises(UnusableStoreError, match="correct endpoint_url"):
        check_writable(replace(s3_store, endpoint_url="somewhere"))


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # asks nobody outside


def test_no_credentials(s3_store, no_credentials, monkeypatch):
    """A client looks for them when it is made; one that found none is not kept."""
    store = replace(s3_store, region="eu-west-1")  # a client of its own
    with pytest.raises(NoCredentialsYetError, match="set AWS credentials") as caught:
        store.get("k")
    assert caught.value.retryable
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "late")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "late")
    with pytest.raises(MissingKeyError):
        store.get("k")


def test_a_job_without_credentials_is_told_so_soon(s3_store, no_credentials):
    store, began = PatientStore(replace(s3_store, region="eu-west-2")), time.monotonic()
    with pytest.raises(StoreError, match="set AWS credentials"):
        check_writable(store)
    assert time.monotonic() - began < 30.0  # of 60 s of patience; about six on an idle machine


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_renewed_credentials_are_found(s3_store, wire, code):
    client = s3_store._client
    assert s3_store._client is client
    wire.faults += [("PUT", answers("403 Forbidden", code))]
    with pytest.raises(NoCredentialsYetError, match="credentials") as caught:
        s3_store.put("k", b"1")
    assert caught.value.retryable
    assert s3_store._client is not client


def test_the_size_of_an_object_is_asked_in_a_way_that_says_what_is_wrong(s3_store, wire):
    """A reply to HEAD has no body, so nobody could tell old credentials from others."""
    s3_store.put("k", b"123")
    wire.faults += [("GET", answers("400 Bad Request", "ExpiredToken"))]
    with pytest.raises(NoCredentialsYetError):
        s3_store.size("k")
    assert s3_store.size("k") == 3


def test_a_pickle_holds_no_client(s3_store):
    s3_store.put("k", b"1")
    assert len(pickle.dumps(s3_store)) < 1000
