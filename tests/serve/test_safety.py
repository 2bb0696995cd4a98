"""Who is let in, what is refused, and what nobody learns."""

import io
import json
import logging

import pytest
import torch
from PIL import Image

from farm.errors import InvalidRequestError, StoreError, UnavailableError
from farm.images import encode_jpeg
from serve.events import Listeners
from serve.gate import check_listening
from serve.keys import KeyFile, KeyRing, add_key, read_keys, revoke_key, write_keys
from serve.limits import RequestLimits, TenantLimits
from serve.metrics import Metrics
from serve.problems import TooManyError, problem_of, scrubbed
from tests.serve.conftest import PICTURE, opened


@pytest.fixture
def keys(tmp_path):
    """A file with two tenants, and a key of each."""
    file, ours = add_key(KeyFile(), "ours")
    file, theirs = add_key(file, "theirs")
    path = tmp_path / "keys.json"
    write_keys(path, file)
    return path, ours, theirs


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def guarded(settings, host, keys):
    path, ours, _ = keys
    settings = settings.model_copy(update={"keys_file": path})
    async with opened(settings, host, headers=bearer(ours)) as farm:
        yield farm


def test_keys_are_kept_as_digests_in_a_file_of_the_owner(keys):
    path, ours, _ = keys
    assert ours.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_is_its_tenants_and_no_other_is(keys):
    path, ours, theirs = keys
    ring = KeyRing(path)
    assert (ring.tenant_of(ours), ring.tenant_of(theirs)) == ("ours", "theirs")
    mixed = "_".join([*ours.split("_", 2)[:2], theirs.split("_", 2)[2]])
    for wrong in ("", "ef_", ours[:-1], ours + "x", mixed, ours.upper(), "ef_" + "0" * 16 + "_"):
        assert ring.tenant_of(wrong) is None


def test_a_revoked_key_stops_working_and_a_lost_file_lets_nobody_in(keys):
    path, ours, theirs = keys
    now = 0.0
    ring = KeyRing(path, clock=lambda: now)
    assert ring.tenant_of(ours) == "ours"
    write_keys(path, revoke_key(read_keys(path), ours.split("_")[1]))
    now = 10.0
    assert ring.tenant_of(ours) is None
    assert ring.tenant_of(theirs) == "theirs"
    path.unlink()
    now = 20.0
    with pytest.raises(UnavailableError):
        ring.tenant_of(theirs)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None, "192.168.1.5", "example.org"])
def test_nobody_listens_beyond_loopback_without_keys(host):
    with pytest.raises(InvalidRequestError, match="keys"):
        check_listening(host, has_keys=False)
    check_listening(host, has_keys=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_loopback_needs_no_keys(host):
    check_listening(host, has_keys=False)


PROTECTED = [
    ("POST", "/v1/edits"),
    ("GET", "/v1/edits"),
    ("GET", "/v1/edits/e" + "0" * 27),
    ("GET", "/v1/edits/e" + "0" * 27 + "/events"),
    ("GET", "/v1/edits/e" + "0" * 27 + "/image"),
    ("GET", "/v1/edits/e" + "0" * 27 + "/preview"),
    ("GET", "/v1/edits/e" + "0" * 27 + "/result"),
    ("GET", "/v1/edits/e" + "0" * 27 + "/outputs/edited.png"),
    ("GET", "/v1/edits/e" + "0" * 27 + "/outputs/edited.png/link"),
    ("POST", "/v1/edits/e" + "0" * 27 + "/cancel"),
    ("POST", "/v1/edits/e" + "0" * 27 + "/retry"),
    ("DELETE", "/v1/edits/e" + "0" * 27),
    ("POST", "/v1/images/edits"),
    ("GET", "/v1/models"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", "/v1/jobs/j" + "0" * 27),
    ("POST", "/v1/jobs/j" + "0" * 27 + "/cancel"),
    ("POST", "/v1/uploads"),
]


async def test_everything_but_health_asks_for_a_key(guarded):
    document = (await guarded.client.get("/openapi.json")).json()
    known = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    open_paths = {"/healthz", "/readyz", "/metrics", "/v1/links/{edit_id}/{name}"}
    assert len(PROTECTED) + 1 == len({p for p in known if p[1] not in open_paths})  # one model
    for method, path in PROTECTED:
        for headers in ({"Authorization": ""}, bearer("ef_" + "0" * 16 + "_" + "A" * 43)):
            response = await guarded.client.request(method, path, headers=headers)
            assert response.status_code == 401, (method, path)
            assert response.json()["code"] == "invalid_api_key"


async def test_a_tenant_never_meets_anothers_edits(guarded, keys):
    _, ours, theirs = keys
    edit = await guarded.done()
    name, digest = edit["id"], edit["request"]["image"]
    link = (await guarded.client.get(f"/v1/edits/{name}/outputs/edited.png/link")).json()["url"]
    client, other = guarded.client, bearer(theirs)
    for method, path in PROTECTED:
        if "/e000" in path:
            place = path.replace("e" + "0" * 27, name)
            response = await client.request(method, place, headers=other)
            assert response.status_code == 404, (method, path)
    assert (await client.get("/v1/edits", headers=other)).json()["data"] == []
    body = {"source_prompt": "a red ball", "target_prompt": "a blue ball"}
    body["image"] = f"inputs/{digest}"
    assert (await client.post("/v1/edits", json=body, headers=other)).status_code == 422
    # the same edit of another tenant is computed for it, not shown from ours
    theirs_edit = await guarded.done(headers=other)
    assert theirs_edit["edit_id"] == edit["edit_id"]
    assert not theirs_edit["reused"]
    assert (await client.get(f"/v1/edits/{name}", headers=bearer(ours))).status_code == 200
    # a link is for whoever holds it, but for nothing else
    anonymous = {"Authorization": ""}
    assert (await client.get(link, headers=anonymous)).status_code == 200
    for changed in (
        link.replace("ours", "theirs"),
        link.replace(name, theirs_edit["id"]),
        link.replace("edited.png", "metrics.json"),
        link.replace("expires=", "expires=9"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
    ):
        assert (await client.get(changed, headers=anonymous)).status_code == 404


async def test_an_idempotency_key_is_its_tenants(guarded, keys):
    headers = {"Idempotency-Key": "shared"}
    first = (await guarded.submit(headers=headers)).json()
    second = (await guarded.submit(headers={**headers, **bearer(keys[2])}, seed=1)).json()
    assert first["id"] != second["id"]


async def test_a_tenant_beyond_its_rate_is_told_when_to_come_back(settings, host, keys):
    path, ours, theirs = keys
    file = read_keys(path)
    tight = file.tenants["ours"].model_copy(update={"limits": TenantLimits(edits_per_minute=2)})
    write_keys(path, file.model_copy(update={"tenants": {**file.tenants, "ours": tight}}))
    settings = settings.model_copy(update={"keys_file": path})
    async with opened(settings, host, headers=bearer(ours)) as farm:
        answers = [await farm.submit(seed=seed) for seed in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert answers[2].json()["code"] == "rate_limited"
        assert 20 <= int(answers[2].headers["retry-after"]) <= 30  # a third token in 30 s
        assert (await farm.submit(headers=bearer(theirs))).status_code == 202


async def test_without_keys_only_names_of_this_machine_are_served(farm):
    for host in ("evil.example", "evil.example:8000", "169.254.169.254", "localhost.evil.example"):
        response = await farm.client.get("/v1/edits", headers={"Host": host})
        assert response.status_code == 421
    for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"):
        response = await farm.client.get("/v1/edits", headers={"Host": host})
        assert response.status_code == 200, host
    foreign = await farm.client.get("/v1/edits", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert (
        await farm.client.get("/v1/edits", headers={"Origin": "http://localhost:7860"})
    ).status_code == 200


async def test_every_response_has_its_headers(farm):
    for path in ("/healthz", "/v1/edits", "/nothing", "/v1/edits/x"):
        headers = (await farm.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert len(headers["x-request-id"]) == 32
    given = {"X-Request-Id": "my-request-1"}
    assert (await farm.client.get("/healthz", headers=given)).headers[
        "x-request-id"
    ] == "my-request-1"
    forged = {"X-Request-Id": "a b\tc{}"}
    assert (await farm.client.get("/healthz", headers=forged)).headers["x-request-id"] != "a b\tc{}"


async def test_long_heads_and_bodies_are_refused(settings, host):
    limits = RequestLimits(max_body_bytes=5000, max_image_bytes=3000)
    async with opened(settings.model_copy(update={"limits": limits}), host) as farm:
        many = {f"x-{number}": "1" for number in range(80)}
        assert (await farm.client.get("/healthz", headers=many)).status_code == 431
        assert (await farm.client.get("/healthz", headers={"x": "1" * 20_000})).status_code == 431
        assert (await farm.submit(image=PICTURE + b"\0" * 5000)).status_code == 413
        assert (await farm.submit(image=PICTURE + b"\0" * 3500)).status_code == 413

        async def undeclared():
            for _ in range(10):
                yield b"x" * 1000

        kind = {"Content-Type": "application/json"}
        response = await farm.client.post("/v1/edits", content=undeclared(), headers=kind)
        assert response.status_code == 413
        form = {f"field{number}": "x" for number in range(60)}
        assert (await farm.client.post("/v1/edits", data=form)).status_code == 415
        files = [("image", ("a.png", b"x", "image/png"))] * 5
        assert (await farm.client.post("/v1/edits", files=files)).status_code == 400


async def test_a_decompression_bomb_is_refused_by_its_header(farm, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    response = await farm.submit(image=path.read_bytes())
    assert response.status_code == 422
    assert response.json()["code"] == "invalid_image"


async def test_exif_does_not_come_back(farm, tmp_path):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x010E] = "at home, 52.5 N 13.4 E"
    Image.open(io.BytesIO(PICTURE)).convert("RGB").save(path, exif=exif)
    assert b"at home" in path.read_bytes()
    ended = await farm.done(image=path.read_bytes())
    for place in ended["outputs"].values():
        assert b"at home" not in (await farm.client.get(place)).content


@pytest.mark.parametrize(
    "content", [b"GIF89a" + b"\0" * 50, b"<svg xmlns='x'/>", b"%PDF-1.7", b"BM"]
)
async def test_images_are_known_by_content(farm, content):
    response = await farm.submit(image=content)
    assert response.json()["code"] == "invalid_image"


async def test_a_jpeg_under_another_name_is_taken(farm):
    image = encode_jpeg(torch.zeros(3, 24, 24))
    assert (await farm.submit(image=image)).status_code == 202


class Broken:
    """A store whose disk is gone, which says where it was."""

    def __init__(self, store):
        self.uri = store.uri

    def __getattr__(self, name):
        def fail(*arguments):
            raise StoreError(f"cannot {name} {arguments!r} in {self.uri}: disk is gone")

        return fail


async def test_errors_of_the_machine_show_nothing_of_it(settings, host):
    async with opened(settings, host) as farm:
        broken = Broken(farm.services.ledger.store)
        object.__setattr__(farm.services.ledger, "store", broken)
        for response in (await farm.submit(), await farm.client.get("/v1/edits")):
            assert response.status_code == 503
            assert response.headers["retry-after"]
            for secret in (settings.store, "file://", "Traceback", "tenants/", "disk"):
                assert secret not in response.text


async def test_what_nobody_foresaw_shows_nothing_and_is_logged(settings, host, caplog, monkeypatch):
    async with opened(settings, host, raise_app_exceptions=False) as farm:

        def explode(*_, **__):
            raise RuntimeError("secret /etc/passwd")

        monkeypatch.setattr(type(farm.services.ledger), "records", explode)
        response = await farm.client.get("/v1/edits")
        assert response.status_code == 500
        assert response.json()["code"] == "internal"
        assert "passwd" not in response.text
        assert "passwd" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "cannot read /srv/store/x.json",
        "in file:///srv/store",
        "s3://bucket/prefix/key is gone",
        "key ef_0123_secretsecret",
    ],
)
def test_paths_addresses_and_keys_are_scrubbed(text):
    for secret in ("/srv", "bucket", "secretsecret", "0123"):
        assert secret not in scrubbed(text)


def test_words_about_the_request_are_not_scrubbed():
    text = "width/height is 2/3 of 24×20 pixels; a/b.json"
    assert scrubbed(text) == text
    assert problem_of(InvalidRequestError(text)).detail == text


async def test_logs_name_requests_and_never_prompts(farm, caplog):
    with caplog.at_level(logging.INFO):
        response = await farm.submit()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "editfarm.access"]
    about = json.loads(line)
    assert about["request_id"] == response.headers["x-request-id"]
    assert (about["method"], about["route"], about["status"]) == ("POST", "/v1/edits", 202)
    assert about["tenant"] == "default"
    assert "ball" not in caplog.text


async def test_prompts_are_logged_where_the_operator_says_so(settings, host, caplog):
    settings = settings.model_copy(update={"log_prompts": True})
    async with opened(settings, host) as farm:
        with caplog.at_level(logging.INFO):
            await farm.submit()
        assert "a blue ball" in caplog.text


def test_open_streams_are_bounded_and_one_tenant_leaves_room_for_others():
    listeners = Listeners(4, Metrics().listeners)
    with listeners.counted("a"), listeners.counted("a"):
        with pytest.raises(TooManyError):
            listeners.check("a")
        listeners.check("b")
        with listeners.counted("b"), listeners.counted("c"), pytest.raises(TooManyError):
            listeners.check("d")
    listeners.check("a")


async def test_metrics_count_requests(farm):
    await farm.submit()
    text = (await farm.client.get("/metrics")).text
    assert 'editfarm_http_requests_total{method="POST",route="/v1/edits",status="202"} 1.0' in text
    assert "editfarm_edits_accepted_total 1.0" in text
