"""The choice of a method over HTTP: a method like the others, and its reasons are an output."""

import json

import pytest

SETTINGS = {"style_diffusion": {"num_steps": 2, "inner_steps": 1}}


async def test_the_farm_chooses_and_says_what_it_chose(farm):
    ended = await farm.done(method="auto", parameters=json.dumps({"settings": SETTINGS}))
    assert ended["state"] == "done"
    response = await farm.client.get(ended["outputs"]["result.json"])
    assert response.headers["content-type"].startswith("application/json")
    told = response.json()
    assert told["chosen"] == "style_diffusion"
    assert set(told["refused"]) == {"learnable_regions", "edit_infinity"}
    # asked by its name, the edit is there
    named = await farm.done(parameters=json.dumps(SETTINGS["style_diffusion"]))
    assert (named["edit_id"], named["reused"]) == (told["edit_id"], True)


async def test_what_no_method_can_do_is_refused_at_once(farm):
    response = await farm.submit(
        method="auto", parameters=json.dumps({"methods": ["learnable_regions"]})
    )
    assert response.status_code == 422
    assert "has no method for this edit" in response.json()["detail"]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"learnable_regions": {"anchornet": "/etc/passwd"}}, "anchornet names a file"),
        ({"style_diffusion": {"inner_steps": 501}}, "settings.style_diffusion.inner_steps is 501"),
        ({"learnable_regions": {"epochs": 10_000}}, "settings.learnable_regions.epochs is 10,000"),
        ({"style_diffusion": {"tau_c": [n / 20 for n in range(17)]}}, "17 edits in one request"),
    ],
)
async def test_settings_of_a_method_are_bounded_as_its_own_requests_are(farm, chosen, says):
    response = await farm.submit(method="auto", parameters=json.dumps({"settings": chosen}))
    assert response.status_code == 422
    assert says in response.json()["detail"]
