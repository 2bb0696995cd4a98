"""`/v1/edits` from the outside, on tiny networks in this process."""

import asyncio
import hashlib
import json

import pytest
import torch

from farm.images import decode_image, encode_png
from serve.records import new_id
from tests.serve.conftest import PICTURE, QUICK, WORDS, opened, picture


async def events_of(farm, name):
    found = []
    async with farm.client.stream("GET", f"/v1/edits/{name}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join([part async for part in response.aiter_text()])
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_an_edit_is_accepted_then_done_and_its_outputs_are_there(farm):
    response = await farm.submit()
    assert response.status_code == 202
    accepted = response.json()
    assert response.headers["location"] == f"/v1/edits/{accepted['id']}"
    assert accepted["state"] == "queued"
    ended = (
        await farm.client.get(response.headers["location"], headers={"Prefer": "wait=30"})
    ).json()
    assert ended["state"] == "done"
    assert ended["request"]["target_prompt"] == "a blue ball"
    edited = await farm.client.get(ended["outputs"]["edited.png"])
    assert edited.headers["content-type"] == "image/png"
    assert decode_image(edited.content).image.shape == (3, 24, 20)
    result = (await farm.client.get(f"/v1/edits/{ended['id']}/result")).json()
    assert result["provenance"]["image_digest"] == hashlib.sha256(PICTURE).hexdigest()
    assert result["provenance"]["model_set"] == "tiny"  # and not the folder's path


async def test_waiting_answers_with_the_end(farm):
    ended = await farm.done()
    assert ended["state"] == "done"
    again = await farm.done()
    assert again["id"] != ended["id"]
    assert again["edit_id"] == ended["edit_id"]
    assert again["reused"]


async def test_json_may_name_an_earlier_image(farm):
    first = await farm.done()
    digest = first["request"]["image"]
    body = {
        **WORDS,
        "target_prompt": "a green ball",
        "image": f"inputs/{digest}",
        "parameters": QUICK,
    }
    response = await farm.client.post("/v1/edits", json=body, headers={"Prefer": "wait=30"})
    assert response.status_code == 200, response.text
    assert response.json()["state"] == "done"


async def test_json_may_name_an_image_of_an_allowed_store(settings, host, tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / "ball.png").write_bytes(PICTURE)
    settings = settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})
    async with opened(settings, host) as farm:
        body = {**WORDS, "image": "photos://a/ball.png", "parameters": QUICK}
        response = await farm.client.post("/v1/edits", json=body)
        assert response.status_code == 202, response.text


@pytest.mark.parametrize(
    "name",
    [
        "photos://../secret.png",
        "photos:///etc/passwd",
        "photos://a/../../secret.png",
        "photos://.hidden/ball.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1:1/ball.png",
        "https://example.org/ball.png",
        "s3://bucket/key",
        "inputs/../../default/inputs/x",
        "inputs/" + "0" * 64,
        "uploads/../records",
        "uploads/nothing",
        "",
    ],
)
async def test_names_of_images_lead_nowhere_else(settings, host, tmp_path, name):
    (tmp_path / "photos").mkdir()
    (tmp_path / "secret.png").write_bytes(PICTURE)
    settings = settings.model_copy(update={"image_stores": {"photos": str(tmp_path / "photos")}})
    async with opened(settings, host) as farm:
        response = await farm.client.post("/v1/edits", json={**WORDS, "image": name})
    assert response.status_code == 422
    assert str(tmp_path) not in response.text


async def test_the_same_key_and_body_are_one_edit(farm):
    headers = {"Idempotency-Key": "k-1"}
    first = await farm.submit(headers=headers)
    second = await farm.submit(headers=headers)
    assert second.json()["id"] == first.json()["id"]
    other = await farm.submit(headers=headers, target_prompt="a green ball")
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_conflict"
    another_image = await farm.submit(headers=headers, image=picture(1))
    assert another_image.status_code == 409


async def test_the_same_key_at_once_is_one_edit(farm):
    responses = await asyncio.gather(
        *(farm.submit(headers={"Idempotency-Key": "k-2"}) for _ in range(6))
    )
    assert len({response.json()["id"] for response in responses}) == 1
    listed = (await farm.client.get("/v1/edits")).json()["data"]
    assert len(listed) == 1


async def test_the_list_is_newest_first_filtered_and_paged(farm):
    names = [(await farm.done(seed=seed, user=f"u{seed % 2}"))["id"] for seed in range(4)]
    page = (await farm.client.get("/v1/edits", params={"limit": 3})).json()
    assert [edit["id"] for edit in page["data"]] == names[:0:-1]
    rest = (await farm.client.get("/v1/edits", params={"after": page["next_cursor"]})).json()
    assert [edit["id"] for edit in rest["data"]] == names[:1]
    assert rest["next_cursor"] is None
    odd = (await farm.client.get("/v1/edits", params={"user": "u1"})).json()["data"]
    assert [edit["id"] for edit in odd] == [names[3], names[1]]
    for filters, count in ({"state": "done"}, 4), ({"state": "failed"}, 0), ({"method": "x"}, 0):
        found = (await farm.client.get("/v1/edits", params=filters)).json()["data"]
        assert len(found) == count


async def test_progress_comes_as_events_until_the_end(farm):
    accepted = (await farm.submit(parameters='{"num_steps": 8, "inner_steps": 12}')).json()
    events = await events_of(farm, accepted["id"])
    assert events[0][0] == "state"
    assert events[-1][0] == "done"
    assert events[-1][1]["id"] == accepted["id"]
    steps = [data["step"] for name, data in events if name == "progress"]
    assert steps
    assert all(data["step"] <= data["total"] for name, data in events if name == "progress")


async def test_events_of_a_finished_edit_end_at_once(farm):
    ended = await farm.done()
    ((name, data),) = await events_of(farm, ended["id"])
    assert (name, data["state"]) == ("done", "done")


async def test_cancel_stops_what_runs_and_retry_ends_it(farm):
    accepted = (await farm.submit(parameters='{"num_steps": 50, "inner_steps": 400}')).json()
    name = accepted["id"]
    async for record, _ in farm.services.watcher.follow("default", name):
        if record.state == "running":
            break
    assert (await farm.client.delete(f"/v1/edits/{name}")).json()["code"] == "not_final"
    await farm.client.post(f"/v1/edits/{name}/cancel")
    ended = (await farm.client.get(f"/v1/edits/{name}", headers={"Prefer": "wait=20"})).json()
    assert ended["state"] == "cancelled"
    assert ended["error"]["code"] == "edit_cancelled"
    again = await farm.client.post(f"/v1/edits/{name}/cancel")
    assert again.json()["state"] == "cancelled"
    assert list(farm.services.ledger.pending()) == []


async def test_what_waits_is_cancelled_at_once_and_can_be_tried_again(settings, host):
    settings = settings.model_copy(update={"max_in_flight": 1})
    async with opened(settings, host) as farm:
        first = (await farm.submit(parameters='{"num_steps": 50, "inner_steps": 400}')).json()
        second = (await farm.submit(seed=1)).json()
        cancelled = (await farm.client.post(f"/v1/edits/{second['id']}/cancel")).json()
        assert cancelled["state"] == "cancelled"
        await farm.client.post(f"/v1/edits/{first['id']}/cancel")
        retried = await farm.client.post(f"/v1/edits/{second['id']}/retry")
        assert retried.status_code == 202
        place = f"/v1/edits/{second['id']}"
        ended = (await farm.client.get(place, headers={"Prefer": "wait=30"})).json()
        assert ended["state"] == "done"
        assert (await farm.client.post(f"{place}/retry")).status_code == 409


async def test_deleting_takes_what_derives_from_it_alone(farm):
    one, two = await farm.done(), await farm.done(target_prompt="a green ball")
    store = farm.services.ledger.store
    assert (await farm.client.delete(f"/v1/edits/{one['id']}")).status_code == 204
    assert (await farm.client.get(f"/v1/edits/{one['id']}")).status_code == 404
    assert (await farm.client.get(two["outputs"]["edited.png"])).status_code == 200
    await farm.client.delete(f"/v1/edits/{two['id']}")
    assert list(store.list("tenants/")) == []


async def test_an_edit_whose_twin_is_deleted_keeps_its_outputs(farm):
    one, two = await farm.done(), await farm.done()
    assert one["edit_id"] == two["edit_id"]
    await farm.client.delete(f"/v1/edits/{one['id']}")
    assert (await farm.client.get(two["outputs"]["edited.png"])).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"target_prompt": "a red ball"}, "invalid_request"),
        ({"target_prompt": " "}, "invalid_request"),
        ({"target_word": "cat"}, "unknown_word"),
        ({"method": "magic"}, "invalid_request"),
        ({"seed": "-1"}, "invalid_request"),
        ({"colour": "red"}, "invalid_request"),
        ({"parameters": '{"num_step": 3}'}, "invalid_request"),
        ({"parameters": '{"inner_steps": 501}'}, "invalid_request"),
        ({"model_set": "/etc"}, "invalid_request"),
        ({"model_set": "scenes"}, "invalid_request"),
        ({"source_prompt": "a red ball" * 200}, "invalid_request"),
        ({"source_prompt": "a red\x07 ball"}, "invalid_request"),
        ({"image": b"not an image"}, "invalid_image"),
        ({"image": b""}, "invalid_image"),
        ({"image": encode_png(torch.zeros(3, 4, 4))}, "invalid_image"),
        ({"webhook_url": "http://169.254.169.254/latest"}, "invalid_request"),
        ({"priority": "now"}, "invalid_request"),
        ({"user": "u" * 129}, "invalid_request"),
        ({"mask": "inputs/" + "0" * 64}, "invalid_request"),
        ({"mask": "/etc/passwd"}, "invalid_request"),
    ],
)
async def test_what_cannot_be_run_is_refused_in_words(farm, fields, code):
    response = await farm.submit(**fields)
    assert response.status_code == 422, response.text
    body = response.json()
    assert body["code"] == code
    assert body["detail"] == body["message"]
    assert response.headers["content-type"] == "application/problem+json"
    assert body["request_id"] == response.headers["x-request-id"]
    assert list(farm.services.ledger.pending()) == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"seed": NaN}', "application/json", 400),
        (b'{"source_prompt": "\\ud800"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"x" * 300_000, "application/json", 413),
        (b"x", "text/plain", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=y", 400),
        (b"x", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_bodies_of_other_kinds_are_refused(farm, body, kind, status):
    response = await farm.client.post("/v1/edits", content=body, headers={"Content-Type": kind})
    assert response.status_code == status, response.text


@pytest.mark.parametrize(
    "path", ["", "/result", "/events", "/outputs/edited.png", "/cancel", "/retry"]
)
async def test_unknown_ids_are_not_found_and_broken_ones_wrong(farm, path):
    method = "POST" if path in ("/cancel", "/retry") else "GET"
    unknown = await farm.client.request(method, f"/v1/edits/{new_id('e')}{path}")
    assert unknown.status_code == 404
    broken = await farm.client.request(method, f"/v1/edits/..%2f..%2fdefault{path}")
    assert broken.status_code in (404, 422)


async def test_outputs_that_are_none_are_not_found(farm):
    ended = await farm.done()
    for name in ("secret.png", "..%2fCOMMIT.json", "COMMIT.json"):
        response = await farm.client.get(f"/v1/edits/{ended['id']}/outputs/{name}")
        assert response.status_code == 404
