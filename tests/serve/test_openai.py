"""OpenAI's own client against `/v1/images/edits` and `/v1/models`."""

import asyncio
import base64
import io
import threading
import time

import openai
import pytest
import torch
from PIL import Image

from farm.images import decode_image, encode_png
from serve import routes_openai
from tests.serve.conftest import PICTURE

EXTRA = {"source_prompt": "a red ball", "parameters": {"num_steps": 3, "inner_steps": 2}}


@pytest.fixture
def client(farm):
    return openai.AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=farm.client, max_retries=0
    )


def named(data, name="a.png"):
    return (name, data, "image/png")


async def test_an_edit_comes_back_as_base64(client):
    response = await client.images.edit(
        image=named(PICTURE), prompt="a blue ball", extra_body=EXTRA
    )
    (item,) = response.data
    picture = decode_image(base64.b64decode(item.b64_json))
    assert picture.image.shape == (3, 24, 20)
    assert response.created > 0


async def test_two_edits_have_two_seeds(client, farm):
    response = await client.images.edit(
        image=[named(PICTURE)], prompt="a blue ball", n=2, extra_body={**EXTRA, "seed": 7}
    )
    assert len(response.data) == 2
    listed = (await farm.client.get("/v1/edits")).json()["data"]
    assert sorted(edit["request"]["seed"] for edit in listed) == [7, 8]


@pytest.mark.parametrize(("form", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
async def test_size_and_format_are_as_asked(client, form, kind):
    response = await client.images.edit(
        image=named(PICTURE),
        prompt="a blue ball",
        size="32x48",
        output_format=form,
        extra_body=EXTRA,
    )
    picture = Image.open(io.BytesIO(base64.b64decode(response.data[0].b64_json)))
    assert (picture.format, picture.size) == (kind, (32, 48))


async def test_a_url_gives_the_picture(client, farm):
    response = await client.images.edit(
        image=named(PICTURE), prompt="a blue ball", response_format="url", extra_body=EXTRA
    )
    picture = await farm.client.get(response.data[0].url)
    assert decode_image(picture.content).image.shape == (3, 24, 20)


async def test_a_mask_keeps_what_is_opaque(client):
    alpha = torch.ones(1, 24, 20)
    alpha[:, :12] = 0
    mask = encode_png(torch.zeros(3, 24, 20), alpha=alpha)
    response = await client.images.edit(
        image=named(PICTURE), mask=named(mask), prompt="a blue ball", extra_body=EXTRA
    )
    edited = decode_image(base64.b64decode(response.data[0].b64_json)).image
    original = decode_image(PICTURE).image
    assert torch.equal(edited[:, 12:], original[:, 12:])
    assert not torch.equal(edited[:, :12], original[:, :12])


@pytest.mark.parametrize(
    "mask", [PICTURE, encode_png(torch.zeros(3, 8, 8), alpha=torch.zeros(1, 8, 8))]
)
async def test_masks_that_fit_not_are_refused_before_any_work(client, farm, mask):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.images.edit(
            image=named(PICTURE), mask=named(mask), prompt="a blue ball", extra_body=EXTRA
        )
    assert caught.value.code == "invalid_image"
    assert (await farm.client.get("/v1/edits")).json()["data"] == []


async def test_without_a_source_prompt_the_error_says_how_to_give_one(client):
    with pytest.raises(openai.UnprocessableEntityError, match="extra_body") as caught:
        await client.images.edit(image=named(PICTURE), prompt="a blue ball")
    assert caught.value.code == "missing_source_prompt"
    assert caught.value.param == "source_prompt"


async def test_a_stream_ends_with_the_picture(client):
    stream = await client.images.edit(
        image=named(PICTURE), prompt="a blue ball", stream=True, extra_body=EXTRA
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_edit.completed"]
    assert decode_image(base64.b64decode(events[0].b64_json)).image.shape == (3, 24, 20)


async def test_models_are_listed_and_chosen(client):
    listed = [model.id async for model in client.models.list()]
    assert "tiny/style_diffusion" in listed
    assert (await client.models.retrieve(listed[0])).id == listed[0]
    for name in ("style_diffusion", "tiny", "tiny/style_diffusion"):
        response = await client.images.edit(
            image=named(PICTURE), prompt="a blue ball", model=name, extra_body=EXTRA
        )
        assert response.data
    with pytest.raises(openai.NotFoundError):
        await client.images.edit(
            image=named(PICTURE), prompt="a blue ball", model="dall-e-9", extra_body=EXTRA
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0},
        {"n": 11},
        {"size": "0x0"},
        {"size": "99999x99999"},
        {"output_format": "gif"},
        {"extra_body": {**EXTRA, "colour": "red"}},
        {"extra_body": {**EXTRA, "parameters": {"steps": 3}}},
        {"extra_body": {**EXTRA, "seed": "x"}},
    ],
)
async def test_wrong_options_are_refused(client, wrong):
    fields = {"extra_body": EXTRA, **wrong}
    with pytest.raises(openai.UnprocessableEntityError):
        await client.images.edit(image=named(PICTURE), prompt="a blue ball", **fields)


async def test_pictures_are_decoded_beside_the_event_loop_and_few_at_a_time(
    client, farm, monkeypatch
):
    """Sixteen calls at once, each with a mask that is drawn; the one loop stays free."""
    running, most, here = [0], [0], threading.get_ident()
    lock = threading.Lock()

    def drawn(mask):
        assert threading.get_ident() != here, "on the event loop"
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return mask

    monkeypatch.setattr(routes_openai, "drawn_mask", drawn)
    alpha = torch.zeros(1, 24, 20)
    mask = encode_png(torch.zeros(3, 24, 20), alpha=alpha)

    async def call():
        with pytest.raises(openai.UnprocessableEntityError):  # this farm has no Infinity
            await client.images.edit(
                image=named(PICTURE),
                mask=named(mask),
                prompt="a blue ball",
                extra_body={"source_prompt": "a red ball", "method": "edit_infinity"},
            )

    await asyncio.gather(*(call() for _ in range(16)))
    assert 1 <= most[0] <= 4
