"""Presigned addresses of S3: recomputed from the specification of signatures, and posted to."""

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from moto.server import ThreadedMotoServer

from tests.serve.conftest import PICTURE, QUICK, WORDS, opened

ACCESS, SECRET = "farm-access", "farm-secret"


@pytest.fixture(scope="module")
def server():
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    yield "http://{}:{}".format(*moto.get_host_and_port())
    moto.stop()


@pytest.fixture
def s3(server, settings, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    httpx2.put(f"{server}/pictures")
    store = f"s3://pictures/farm?endpoint_url={server}&region=us-east-1"
    return settings.model_copy(update={"store": store})


def chained(secret, *parts):
    key = b"AWS4" + secret.encode()
    for part in parts:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def expected_signature(url):
    """AWS Signature Version 4 of a presigned GET, from its documentation, not from an SDK."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    query.pop("X-Amz-Signature")
    day, region, service, end = query["X-Amz-Credential"].split("/")[1:]
    canonical = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(query.items())
    )
    head = ["GET", parts.path, canonical, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(head).encode()).hexdigest()
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])
    key = chained(SECRET, day, region, service, end)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


async def test_links_of_outputs_are_signed_by_s3_and_expire(s3, host):
    async with opened(s3, host) as farm:
        ended = await farm.done()
        place = f"/v1/edits/{ended['id']}/outputs/edited.png/link"
        url = (await farm.client.get(place)).json()["url"]
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Signature"] == [expected_signature(url)]
    assert query["X-Amz-Expires"] == ["900"]
    assert query["X-Amz-Credential"][0].startswith(ACCESS)
    assert httpx2.get(url).content.startswith(b"\x89PNG")


async def test_a_picture_is_posted_to_s3_and_then_named(s3, host):
    async with opened(s3, host) as farm:
        form = (await farm.client.post("/v1/uploads")).json()
        policy = json.loads(base64.b64decode(form["fields"]["policy"]))
        most = s3.limits.max_image_bytes
        assert ["content-length-range", 1, most] in policy["conditions"]
        day, region, service, end = form["fields"]["x-amz-credential"].split("/")[1:]
        key = chained(SECRET, day, region, service, end)
        signed = hmac.new(key, form["fields"]["policy"].encode(), hashlib.sha256).hexdigest()
        assert form["fields"]["x-amz-signature"] == signed
        posted = httpx2.post(form["url"], data=form["fields"], files={"file": PICTURE})
        assert posted.status_code == 204
        body = {**WORDS, "image": form["image"], "parameters": QUICK}
        response = await farm.client.post("/v1/edits", json=body, headers={"Prefer": "wait=30"})
        assert response.json()["state"] == "done", response.text


async def test_other_stores_take_no_direct_uploads(farm):
    assert (await farm.client.post("/v1/uploads")).json()["code"] == "no_direct_uploads"
