"""Pictures of an edit half-way: by events, by asking, by OpenAI's client."""

import asyncio
import base64
import json

import openai
import pytest

from farm.images import decode_image
from serve.looks import Looks
from tests.serve.conftest import PICTURE

LONG = {"num_steps": 20, "inner_steps": 8}
STEPS = json.dumps(LONG)


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Tiny edits take less time than the pause between two pictures of real ones."""
    monkeypatch.setattr("actors.previews._LEAST_PAUSE", 0.02)


async def told(farm, name, query=""):
    """Data of all progress events of an edit."""
    async with farm.client.stream("GET", f"/v1/edits/{name}/events{query}") as response:
        text = "".join([part async for part in response.aiter_text()])
    events = [event.split("\n") for event in text.split("\n\n") if event.startswith("event: p")]
    return [json.loads(event[1].removeprefix("data: ")) for event in events]


async def test_progress_says_where_the_latest_picture_is(farm):
    name = (await farm.submit(parameters=STEPS)).json()["id"]
    links = [step["preview"] for step in await told(farm, name) if step["preview"]]
    assert len(set(links)) > 1  # another picture, another address
    assert all(link.startswith(f"/v1/edits/{name}/preview?picture=") for link in links)


async def test_a_picture_can_be_had_while_the_edit_runs_and_not_after(farm):
    name = (await farm.submit(parameters=STEPS)).json()["id"]
    place = f"/v1/edits/{name}/preview"
    found = await farm.client.get(place)
    while found.status_code == 404:
        assert found.json()["code"] == "not_found"
        await asyncio.sleep(0.01)
        found = await farm.client.get(place)
    assert found.headers["content-type"] == "image/jpeg"
    assert found.headers["cache-control"] == "no-store"
    assert decode_image(found.content).image.shape == (3, 24, 20)
    await farm.client.get(f"/v1/edits/{name}", headers={"Prefer": "wait=60"})
    assert (await farm.client.get(place)).status_code == 404


async def test_nobody_looks_and_nothing_is_drawn(farm, monkeypatch):
    def never(*_):
        raise AssertionError("a picture was made that nobody asked for")

    monkeypatch.setattr("actors.previews.Previews.take", never)
    assert (await farm.done())["state"] == "done"
    name = (await farm.submit(parameters=STEPS, seed="1")).json()["id"]
    found = await told(farm, name, "?previews=false")
    assert found
    assert {step["preview"] for step in found} == {None}


async def test_a_stream_of_openais_client_has_partial_images(farm):
    client = openai.AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=farm.client, max_retries=0
    )
    stream = await client.images.edit(
        image=("a.png", PICTURE, "image/png"),
        prompt="a blue ball",
        size="32x48",
        output_format="webp",
        stream=True,
        partial_images=2,
        extra_body={"source_prompt": "a red ball", "parameters": LONG},
    )
    *partial, last = [event async for event in stream]
    assert [event.type for event in partial] == ["image_edit.partial_image"] * 2
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert last.type == "image_edit.completed"
    pictures = [base64.b64decode(event.b64_json) for event in (*partial, last)]
    assert len(set(pictures)) == 3
    for event, picture in zip((*partial, last), pictures, strict=True):
        assert picture[8:12] == b"WEBP"
        assert decode_image(picture).image.shape == (3, 48, 32)
        assert (event.size, event.output_format) == ("32x48", "webp")


async def test_more_partial_images_than_openai_has_are_refused(farm):
    response = await farm.client.post(
        "/v1/images/edits",
        data={"prompt": "a blue ball", "source_prompt": "a red ball", "partial_images": "4"},
        files={"image": ("a.png", PICTURE, "image/png")},
    )
    assert (response.status_code, response.json()["param"]) == (422, "partial_images")


def test_a_look_counts_for_a_while():
    looks = Looks()
    looks.note([("a", "e1")], 0.0)
    looks.note([("a", "e2")], 3.0)
    assert looks.at(4.0) == [("a", "e1"), ("a", "e2")]
    assert looks.at(6.0) == [("a", "e2")]
    assert looks.at(8.0) == []
