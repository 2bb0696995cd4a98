"""Masks on their way to the one method that takes them."""

import base64
import json

import openai
import pytest
import torch
import torch.nn.functional as F

from farm.images import decode_image, encode_png
from serve.settings import Settings
from tests.serve.conftest import opened, picture
from tests.tiny_infinity import tiny_whole_networks, write_tiny_whole_set

from farm.backbones.host import OperationHost  # isort: skip

PICTURE = picture(3, 24, 40)
WORDS = {"source_prompt": "a red cat on the grass", "target_prompt": "a blue cat on the grass"}
QUICK = {"train_textembedding_iter": 2, "train_lora_iter": 2, "prompt_rows": 2, "lora_r": 2}
INSIDE = torch.zeros(1, 24, 40)
INSIDE[:, :12, :20] = 1
MASK = encode_png(INSIDE)


@pytest.fixture(scope="module")
def infinity(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infinity") / "whole"
    write_tiny_whole_set(folder)
    return folder, OperationHost(tiny_whole_networks())


@pytest.fixture
async def drawn(infinity, tmp_path):
    folder, host = infinity
    settings = Settings(store=str(tmp_path / "store"), model_set=str(folder))
    async with opened(settings, host) as farm:
        yield farm


def is_inside(mask):
    """Whether a mask that went to the network's size and back is INSIDE, but for its border.

    The tiny networks know squares alone, so the picture's sides are out of their sight.
    """
    seen = INSIDE.clone()
    seen[..., :8] = seen[..., 32:] = 0
    near = F.avg_pool2d(seen[None], 5, 1, 2, count_include_pad=False)[0]
    sure = (near == 0) | (near == 1)
    assert sure.float().mean() > 0.7
    return torch.equal((mask > 0.5)[sure], (seen > 0.5)[sure])


def fields(**changes):
    return {
        **WORDS,
        "method": "edit_infinity",
        "parameters": json.dumps(QUICK),
        **changes,
    }


async def submit(farm, mask, **headers):
    files = {"image": ("a.png", PICTURE, "image/png"), "mask": ("m.png", mask, "image/png")}
    headers = {"Prefer": "wait=60", **headers}
    return await farm.client.post("/v1/edits", data=fields(), files=files, headers=headers)


async def test_an_attached_mask_says_where(drawn):
    ended = (await submit(drawn, MASK)).json()
    assert ended["state"] == "done", ended
    found = decode_image((await drawn.client.get(ended["outputs"]["mask.png"])).content).image
    assert is_inside(found[:1])
    ledger = drawn.services.ledger
    assert not list(ledger.store.list("tenants/default/online/masks/"))  # done: not needed again


async def test_another_mask_is_another_edit_and_another_idempotent_request(drawn):
    other = encode_png(1 - INSIDE)
    key = {"Idempotency-Key": "m"}
    one = (await submit(drawn, MASK, **key)).json()
    assert (await submit(drawn, other, **key)).status_code == 409
    two = (await submit(drawn, other)).json()
    assert one["edit_id"] != two["edit_id"]


async def test_a_mask_that_is_none_is_refused(drawn):
    for mask in (b"", b"GIF89a", encode_png(torch.ones(1, 9, 9))):
        response = await submit(drawn, mask)
        assert response.status_code == 422, response.text
        assert response.json()["code"] == "invalid_image"


async def test_openais_mask_is_transparent_where_it_edits(drawn):
    client = openai.AsyncOpenAI(
        base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=drawn.client, max_retries=0
    )
    mask = encode_png(torch.zeros(3, 24, 40), alpha=1 - INSIDE)
    response = await client.images.edit(
        image=("a.png", PICTURE, "image/png"),
        mask=("m.png", mask, "image/png"),
        prompt=WORDS["target_prompt"],
        model="edit_infinity",
        extra_body={"source_prompt": WORDS["source_prompt"], "parameters": QUICK},
    )
    edited = decode_image(base64.b64decode(response.data[0].b64_json)).image
    kept = (INSIDE < 0.5).expand(3, -1, -1)
    assert torch.equal(edited[kept], decode_image(PICTURE).image[kept])
    shown = (await drawn.client.get(f"/v1/edits/{response.data[0].id}/outputs/mask.png")).content
    assert is_inside(decode_image(shown).image[:1])
